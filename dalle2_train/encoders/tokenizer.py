"""A byte-level BPE tokenizer in CLIP's own form, trained on captions.

The vocabulary is laid out as OpenAI's: 256 byte symbols, the same 256 ending a word (`</w>`), one token per
merge, then `<|startoftext|>` and `<|endoftext|>` last. Every string can thus be encoded, whatever its
bytes: an unknown byte would become `<|endoftext|>`, and the text would be pooled there.
Legend: B batch, L context length.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer

from dalle2_train.errors import InputError

START_TOKEN, END_TOKEN = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"
NUM_FIXED_TOKENS = 2 * 256 + 2


def train_tokenizer(captions: Iterable[str], vocab_size: int, context_length: int) -> CLIPTokenizer:
    """Learn at most `vocab_size - 514` merges from the captions; the same captions give the same tokenizer.

    Few captions give fewer merges (a pair seen once is not merged), so `len(tokenizer)` may be below it.
    `context_length` counts both special tokens. Raises InputError when a size leaves no room for them.
    """
    if vocab_size < NUM_FIXED_TOKENS:
        raise InputError(
            f"vocab_size={vocab_size} leaves no room for the bytes: give at least {NUM_FIXED_TOKENS}."
        )
    if context_length < 3:
        raise InputError(
            f"context_length={context_length} holds no word between start and end: give at least 3."
        )
    merges = _learn_merges(captions, vocab_size - NUM_FIXED_TOKENS)
    return CLIPTokenizer(
        vocab=_vocabulary(merges),
        merges=merges,  # pyright: ignore[reportArgumentType]  (annotated as strings, handed to BPE as pairs)
        model_max_length=context_length,
    )


def tokenize(
    tokenizer: CLIPTokenizer, captions: list[str], context_length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, L) long and mask (B, L) bool, padded or cut to L; None: the tokenizer's `model_max_length`."""
    encoded = tokenizer(
        captions,
        padding="max_length",
        max_length=context_length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoded["input_ids"], encoded["attention_mask"].bool()


def cut_tokens(tokenizer: CLIPTokenizer, token_ids: torch.Tensor, text_mask: torch.Tensor) -> torch.Tensor:
    """Token ids as `tokenize` makes them for the CLIP itself, out of those for at least as long a context."""
    length, end = tokenizer.model_max_length, tokenizer.eos_token_id
    assert isinstance(end, int)
    cut = token_ids[:, :length].clone()  # (B, L)
    cut[text_mask[:, length - 1], length - 1] = end
    return cut


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write the tokenizer's files, and the vocab.json and merges.txt that transformers before 5 asks for."""
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))


def merges_of(tokenizer: Tokenizer) -> list[list[str]]:
    """The merges of a BPE tokenizer, in order of application."""
    return json.loads(tokenizer.to_str())["model"]["merges"]


def _learn_merges(captions: Iterable[str], num_merges: int) -> list[tuple[str, str]]:
    """BPE merges, most frequent first, on words split and normalised exactly as CLIPTokenizer will do."""
    split_like = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(BPE(end_of_word_suffix=END_OF_WORD))
    learner.normalizer = split_like.normalizer
    learner.pre_tokenizer = split_like.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=2 * 256 + num_merges,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=_byte_symbols(),
        # Ties are broken by id, and symbols met on the way get ids in a random order: name them all.
        special_tokens=[symbol + END_OF_WORD for symbol in _byte_symbols()],
        end_of_word_suffix=END_OF_WORD,
    )
    learner.train_from_iterator(captions, trainer=trainer)
    return [(pair[0], pair[1]) for pair in merges_of(learner)]


def _byte_symbols() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    symbols = _byte_symbols()
    tokens = symbols + [symbol + END_OF_WORD for symbol in symbols]
    tokens += ["".join(pair) for pair in merges]
    tokens += [START_TOKEN, END_TOKEN]
    # Two merges may spell the same token; it keeps its first place.
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}
