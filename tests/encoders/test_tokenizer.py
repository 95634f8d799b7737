"""Ours, trained here, against transformers' CLIPTokenizer opened from the saved folder."""

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

from dalle2_train.encoders import tokenize, train_tokenizer
from dalle2_train.encoders.tokenizer import NUM_FIXED_TOKENS
from dalle2_train.errors import InputError

STRANGE = ["", "A Red  HEART", "zebra q", "é☃😀 <|zzz|>", "it's\n123", "red " * 40, "Ā ā 漢字 \x00"]


@pytest.mark.parametrize("opened_by", [CLIPTokenizer, AutoTokenizer])
def test_saved_folder_gives_equal_ids(tokenizer, captions, clip_folder, opened_by):
    theirs = opened_by.from_pretrained(clip_folder)
    assert theirs.model_max_length == 16
    assert theirs.get_vocab() == tokenizer.get_vocab()
    texts = STRANGE + captions
    for ours, other in zip(tokenize(tokenizer, texts), tokenize(theirs, texts), strict=True):
        assert torch.equal(ours, other)


def test_vocab_and_merges_files_give_equal_ids(tokenizer, clip_folder, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((clip_folder / name).read_bytes())
    theirs = CLIPTokenizer.from_pretrained(tmp_path)
    assert [theirs(text).input_ids for text in STRANGE] == [tokenizer(text).input_ids for text in STRANGE]


def test_every_byte_is_encoded_and_only_the_end_is_the_end_token(tokenizer):
    text = "".join(chr(code) for code in range(0x21, 0x2500) if chr(code).strip())
    ids = tokenizer(text, truncation=False).input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.index(tokenizer.eos_token_id) == len(ids) - 1


def test_round_trip_lower_cases(tokenizer):
    assert tokenizer.decode(tokenizer("Café ☃ Grinning FACE").input_ids, skip_special_tokens=True) == (
        "café ☃ grinning face"
    )


def test_layout_is_clips(tokenizer):
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (len(tokenizer) - 2, len(tokenizer) - 1)
    ids, mask = tokenize(tokenizer, ["", "red " * 40])
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert ids.shape == mask.shape == (2, 16)
    assert ids[0].tolist() == [tokenizer.bos_token_id] + [tokenizer.eos_token_id] * 15
    assert mask[0].tolist() == [True, True] + [False] * 14
    assert mask[1].all()
    assert ids[1, -1] == tokenizer.eos_token_id


def test_merges_are_learned_within_the_bound_and_deterministically(captions):
    first = train_tokenizer(captions, 560, 16)
    assert len(first) == 560
    assert all(train_tokenizer(captions, 560, 16).get_vocab() == first.get_vocab() for _ in range(10))
    assert len(first("grinning").input_ids) < len("grinning") + 2
    assert len(train_tokenizer([], 600, 16)) == NUM_FIXED_TOKENS


@pytest.mark.parametrize(("vocab_size", "context_length"), [(513, 16), (600, 2)])
def test_impossible_sizes_are_refused(captions, vocab_size, context_length):
    with pytest.raises(InputError, match="give at least"):
        train_tokenizer(captions, vocab_size, context_length)
