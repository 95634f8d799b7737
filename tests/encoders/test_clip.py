"""Sizes, special tokens and saving of a CLIP built here."""

import dataclasses
import json

import pytest
import torch
from transformers import CLIPModel

from dalle2_train.encoders import ClipConfig, ClipForTraining, build_clip, to_clip_state, train_tokenizer
from dalle2_train.encoders.pixels import to_pixel_values
from dalle2_train.errors import InputError


def test_folder_is_an_ordinary_clip(clip, clip_folder):
    theirs, report = CLIPModel.from_pretrained(clip_folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, tensor in clip.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor)
    assert json.loads((clip_folder / "config.json").read_text())["architectures"] == ["CLIPModel"]


def test_text_is_pooled_at_the_first_end_token(clip, tokenizer):
    encoded = tokenizer(["red apple", "blue"], padding="max_length", return_tensors="pt")
    hidden = clip.text_model(input_ids=encoded.input_ids)
    ends = encoded.attention_mask.sum(dim=1) - 1
    assert ends.tolist()[0] != ends.tolist()[1]
    assert torch.equal(hidden.pooler_output, hidden.last_hidden_state[torch.arange(2), ends])


@pytest.mark.parametrize(
    "wrong",
    [{"text_heads": 5}, {"vision_heads": 7}, {"patch_size": 5}, {"vocab_size": 100}, {"text_heads": 0}],
)
def test_impossible_sizes_are_named(config, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        dataclasses.replace(config, **wrong)


def test_foreign_tokenizer_is_refused(config, captions):
    with pytest.raises(InputError, match="context_length"):
        build_clip(config, train_tokenizer(captions, 600, 8))
    with pytest.raises(InputError, match="vocab_size"):
        build_clip(dataclasses.replace(config, vocab_size=520), train_tokenizer(captions, 600, 16))


def test_trainable_form_gives_transformers_embeddings(clip, tokenizer, captions):
    model = ClipForTraining(clip)
    assert all(parameter.dim() > 0 for parameter in model.parameters())
    pixels = to_pixel_values(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8), 32)
    ids = tokenizer(captions[:3], padding="max_length", return_tensors="pt").input_ids
    ours, theirs = model(pixels, ids), clip(input_ids=ids, pixel_values=pixels)
    torch.testing.assert_close(ours.image_embed, theirs.image_embeds)
    torch.testing.assert_close(ours.text_embed, theirs.text_embeds)
    torch.testing.assert_close(ours.scale * ours.image_embed @ ours.text_embed.T, theirs.logits_per_image)


def test_trainable_state_goes_there_and_back(clip):
    model = ClipForTraining(clip)
    state = to_clip_state(model.state_dict())
    clip.load_state_dict(state, strict=True)
    state["logit_scale"] = state["logit_scale"] + 1
    model.load_state_dict(state, strict=True)
    assert torch.equal(model.logit_scale, clip.logit_scale.reshape(1) + 1)


def test_the_papers_clip_can_be_said_and_has_the_parameters_of_its_sizes(captions):
    """ViT-H/16 at 256 pixels, width 1280, 32 blocks; text width 1024, 24 blocks; 1024 dimensions."""
    config = ClipConfig(
        embed_dim=1024,
        context_length=77,
        vocab_size=49408,
        text_depth=24,
        text_heads=16,
        image_size=256,
        patch_size=16,
        vision_width=1280,
        vision_depth=32,
        vision_heads=16,
    )
    with torch.device("meta"):
        clip = build_clip(config, train_tokenizer(captions, 600, 77))

    def blocks(width: int, depth: int) -> int:
        """Four projections, an MLP of four times the width and two norms, with biases."""
        return depth * (4 * (width**2 + width) + (8 * width**2 + 5 * width) + 4 * width)

    tokens = (256 // 16) ** 2 + 1
    vision = 3 * 16**2 * 1280 + 1280 + tokens * 1280 + blocks(1280, 32) + 4 * 1280
    text = (49408 + 77) * 1024 + blocks(1024, 24) + 2 * 1024
    expected = vision + text + 1280 * 1024 + 1024 * 1024 + 1
    assert sum(parameter.numel() for parameter in clip.parameters()) == expected
