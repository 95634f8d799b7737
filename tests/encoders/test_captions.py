"""Captions for a text encoder of its own: CLIP is told what it would have been told without one."""

from unittest.mock import Mock

import torch

from dalle2_train.encoders import TextFeatures, tokenize
from dalle2_train.encoders.captions import CaptionReader, TextTokens
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.tokenizer import cut_tokens
from dalle2_train.training.texts import encode_beside_batches

TEXTS = ["", "red heart", "red " * 13, "red " * 14, "red " * 15, "red heart " * 40, "é☃😀 zebra"]


def test_cut_tokens_are_those_of_the_short_context(tokenizer):
    short, _ = tokenize(tokenizer, TEXTS)
    for length in (16, 17, 40):
        token_ids, text_mask = tokenize(tokenizer, TEXTS, length)
        assert token_ids.shape == (len(TEXTS), length)
        assert torch.equal(cut_tokens(tokenizer, token_ids, text_mask), short)


def test_the_text_embedding_is_clips_and_the_tokens_are_the_longer_ones(clip, tokenizer):
    encoder = ClipEncoder(clip, tokenizer)
    told = CaptionReader(encoder, 40).read(TEXTS)
    assert isinstance(told, TextTokens)
    torch.testing.assert_close(told.text_embed, encoder.encode_captions(TEXTS).text_embed)
    for ours, theirs in zip(told[1:], tokenize(tokenizer, TEXTS, 40), strict=True):
        assert torch.equal(ours, theirs)
    assert told.text_mask.sum(dim=1).max() == 40  # what CLIP has no room for


def test_no_text_is_the_empty_caption_to_clip_and_nothing_but_padding_to_the_own_encoder(clip, tokenizer):
    encoder = ClipEncoder(clip, tokenizer)
    null = CaptionReader(encoder, 40).null_text()
    torch.testing.assert_close(null.text_embed, encoder.encode_captions([""]).text_embed)
    assert null.text_mask.shape == (1, 40) and not null.text_mask.any()
    assert CaptionReader(encoder, 40, with_text_embed=False).null_text().text_embed.shape == (1, 0)


def test_without_an_own_encoder_it_is_clips_features(clip, tokenizer):
    encoder = ClipEncoder(clip, tokenizer)
    reader = CaptionReader(encoder)
    for told, theirs in (
        (reader.read(TEXTS), encoder.encode_captions(TEXTS)),
        (reader.null_text(), encoder.encode_captions([""])),
    ):
        assert isinstance(told, TextFeatures)
        assert all(torch.equal(ours, other) for ours, other in zip(told, theirs, strict=True))


def test_a_clip_that_others_have_too_stays_where_it_is_until_a_training_takes_it_along():
    clip = Mock(spec=ClipEncoder, device=torch.device("meta"))
    token_ids, text_mask = torch.zeros(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.bool)
    told = CaptionReader(clip).encode(token_ids, text_mask)
    assert told is clip.encode_text.return_value
    clip.to.assert_not_called()
    assert encode_beside_batches(CaptionReader(clip))(token_ids, text_mask) is told
    clip.to.assert_called_once_with(token_ids.device)
