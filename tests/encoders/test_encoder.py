"""The frozen encoder against transformers' own classes on the same folder."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from dalle2_train.encoders import load_clip, save_clip
from dalle2_train.encoders.pixels import PixelStatistics
from dalle2_train.errors import InputError

PROMPTS = ["red apple", "", "a grinning face with a very long caption " * 4]


@pytest.fixture(scope="module")
def encoder(clip_folder):
    return load_clip(str(clip_folder))


@pytest.fixture
def copy(clip_folder, tmp_path):
    return shutil.copytree(clip_folder, tmp_path / "copy")


def edit_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_text_equals_the_pipelines(encoder, clip_folder):
    theirs = CLIPTextModelWithProjection.from_pretrained(clip_folder)
    inputs = CLIPTokenizer.from_pretrained(clip_folder)(
        PROMPTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"
    )
    expected = theirs(inputs.input_ids)
    ours = encoder.encode_text(*encoder.tokenize(PROMPTS))
    torch.testing.assert_close(ours.text_embed, expected.text_embeds)
    torch.testing.assert_close(ours.text_encodings, expected.last_hidden_state)
    assert torch.equal(ours.text_mask, inputs.attention_mask.bool())
    for null, row in zip(encoder.encode_captions([""]), ours, strict=True):
        torch.testing.assert_close(null, row[1:2])


def test_image_equals_transformers(encoder, clip_folder):
    theirs = CLIPVisionModelWithProjection.from_pretrained(clip_folder)
    picture = torch.randint(
        0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pil = [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in picture]
    pixels = CLIPImageProcessorPil.from_pretrained(clip_folder)(pil, return_tensors="pt").pixel_values
    ours = encoder.encode_image(picture)
    torch.testing.assert_close(ours, theirs(pixels).image_embeds, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours.norm(dim=-1), torch.ones(2))


def test_it_is_frozen(encoder):
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.encode_captions(["red"]).text_embed.requires_grad


def test_sizes(encoder):
    assert (encoder.embed_dim, encoder.context_length, encoder.image_size) == (32, 16, 32)


def test_fingerprint_survives_saving(encoder, tmp_path):
    save_clip(encoder.model, encoder.tokenizer, tmp_path / "model")
    assert load_clip(str(tmp_path), encoder.fingerprint).fingerprint == encoder.fingerprint


def test_fingerprint_sees_a_weight_a_size_and_a_merge(encoder, copy):
    weights = load_file(copy / "model.safetensors")
    weights["text_projection.weight"][0, 0] += 1e-6
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    other = load_clip(str(copy)).fingerprint
    config = json.loads((copy / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "quick_gelu"
    (copy / "config.json").write_text(json.dumps(config))
    third = load_clip(str(copy)).fingerprint
    edit_json(copy / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    assert len({encoder.fingerprint, other, third, load_clip(str(copy)).fingerprint}) == 4


def test_mismatch_names_both(encoder, clip_folder):
    with pytest.raises(InputError) as caught:
        load_clip(str(clip_folder), "f" * 64)
    assert encoder.fingerprint in str(caught.value)
    assert "f" * 64 in str(caught.value)


def test_missing_folder_is_the_users_fault(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        load_clip(str(tmp_path / "nowhere"))


def test_missing_weight_is_refused(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="visual_projection"):
        load_clip(str(copy))


def test_torn_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be opened"):
        load_clip(str(copy))


def test_pickled_weights_are_not_opened(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be opened"):
        load_clip(str(copy))


def test_other_models_are_refused(copy):
    edit_json(copy / "config.json", model_type="siglip")
    with pytest.raises(InputError, match="siglip"):
        load_clip(str(copy))


def test_text_width_must_be_the_embeddings(copy):
    edit_json(copy / "config.json", projection_dim=16)
    with pytest.raises(InputError, match="text width 32 and embedding width 16"):
        load_clip(str(copy))


def test_tokenizer_of_another_length_is_refused(copy):
    edit_json(copy / "tokenizer_config.json", model_max_length=77)
    with pytest.raises(InputError, match="model_max_length"):
        load_clip(str(copy))


def test_folder_behind_fsspec(encoder, clip_folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in clip_folder.iterdir():
        memory.pipe_file(f"/clips/one/{path.name}", path.read_bytes())
    assert load_clip("memory://clips/one", encoder.fingerprint).embed_dim == 32


@pytest.fixture(scope="module")
def text_half(clip_folder, tmp_path_factory):
    """As a diffusers text-to-image folder holds it, with the tokenizer beside it."""
    folder = tmp_path_factory.mktemp("text half")
    CLIPTextModelWithProjection.from_pretrained(clip_folder).save_pretrained(folder)
    CLIPTokenizer.from_pretrained(clip_folder).save_pretrained(folder)
    return load_clip(str(folder))


def test_a_text_half_encodes_text_as_the_whole_does(text_half, encoder):
    for half, whole in zip(text_half.encode_captions(PROMPTS), encoder.encode_captions(PROMPTS), strict=True):
        assert torch.equal(half, whole)


def test_the_whole_clip_answers_to_its_text_half_but_not_the_other_way(
    text_half, encoder, clip_folder, tmp_path
):
    assert text_half.fingerprint == encoder.text_fingerprint != encoder.fingerprint
    assert load_clip(str(clip_folder), text_half.fingerprint).sees_pictures
    save_clip(text_half.model, text_half.tokenizer, tmp_path)
    with pytest.raises(InputError, match=rf"of a text half alone\), but {encoder.fingerprint} is needed"):
        load_clip(str(tmp_path), encoder.fingerprint)


@pytest.mark.parametrize("name", ["text_projection.weight", "text_model.final_layer_norm.bias"])
def test_a_clip_with_another_text_half_does_not_answer(text_half, copy, name):
    weights = load_file(copy / "model.safetensors")
    weights[name].view(-1)[0] += 1e-6
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert not load_clip(str(copy)).answers_to(text_half.fingerprint)


def test_a_text_half_is_asked_for_no_picture(text_half):
    for ask in (lambda: text_half.image_size, lambda: text_half.encode_image(torch.zeros(1, 3, 32, 32))):
        with pytest.raises(InputError, match=r"no image tower.*give the whole CLIP"):
            ask()


def test_pixel_statistics_are_saved_with_the_clip(encoder, tmp_path):
    pixels = PixelStatistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    save_clip(encoder.model, encoder.tokenizer, tmp_path, pixels)
    assert load_clip(str(tmp_path)).pixels == pixels
