"""Parts find each other, and what does not belong together is refused with both names."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import CLIPTextModelWithProjection

from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.generation.load import load_unclip


def test_parts_are_known_by_kind_in_any_order_and_by_the_runs_that_made_them(
    models: Mapping[str, str], tmp_path: Path
):
    shutil.copytree(models["decoder"], tmp_path / "run" / "model")
    unclip = load_unclip([models["upsampler"], str(tmp_path / "run"), models["prior"]])
    assert unclip.prior.manifest.kind == "prior"
    assert unclip.decoder.manifest.kind == "decoder"
    assert len(unclip.upsamplers) == 1
    assert not any(parameter.requires_grad for parameter in unclip.decoder.network.parameters())


def test_the_clip_is_the_one_that_the_manifests_name(models: Mapping[str, str]):
    unclip = load_unclip([models[kind] for kind in ("prior", "decoder", "upsampler")])
    assert unclip.clip_uri == models["clip"]
    assert unclip.clip.fingerprint == load_clip(models["clip"]).fingerprint


def test_another_clip_is_refused_naming_both_fingerprints(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path
):
    other = tiny.write_clip(tmp_path / "other", seed=1)
    fingerprints = [load_clip(str(folder)).fingerprint for folder in (models["clip"], other)]
    parts = [models[kind] for kind in ("prior", "decoder", "upsampler")]
    for arguments in ({"models": parts, "clip": str(other)}, {"models": [*parts, str(other)]}):
        with pytest.raises(InputError) as caught:
            load_unclip(**arguments)
        assert all(fingerprint in str(caught.value) for fingerprint in fingerprints)


def test_parts_of_two_clips_are_refused_naming_both_fingerprints(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path
):
    other = tiny.write_clip(tmp_path / "clip", seed=1)
    decoder = tiny.write_part(tmp_path / "decoder", "decoder", other)
    with pytest.raises(InputError) as caught:
        load_unclip([models["prior"], str(decoder), models["upsampler"]])
    for folder in (models["clip"], str(other)):
        assert load_clip(folder).fingerprint in str(caught.value)


def test_parts_may_name_the_text_half_of_the_clip_of_others(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path
):
    whole = load_clip(models["clip"])
    half = tmp_path / "half"
    CLIPTextModelWithProjection.from_pretrained(models["clip"]).save_pretrained(half)
    whole.tokenizer.save_pretrained(half)
    prior = tiny.write_part(tmp_path / "prior", "prior", half)
    parts = [str(prior), models["decoder"], models["upsampler"]]
    for given in (parts, [*parts, models["clip"]]):
        assert load_unclip(given).clip.fingerprint == whole.fingerprint
    with pytest.raises(InputError, match=whole.fingerprint):
        load_unclip([*parts, str(half)])
    decoder = tiny.write_part(tmp_path / "decoder", "decoder", half)
    alone = load_unclip([str(prior), str(decoder), models["upsampler"]])
    assert alone.clip_uri == str(half) and not alone.clip.sees_pictures


@pytest.mark.parametrize("missing", ["prior", "decoder", "upsampler"])
def test_a_missing_part_is_named_with_the_remedy(models: Mapping[str, str], missing: str):
    with pytest.raises(InputError, match=f"'{missing}' .*dalle2-train train {missing}"):
        load_unclip([uri for kind, uri in models.items() if kind != missing])


def test_without_an_upsampler_where_none_is_asked_for(models: Mapping[str, str]):
    unclip = load_unclip([models["prior"], models["decoder"]], parts=("prior", "decoder"))
    assert unclip.upsamplers == ()
    assert unclip.image_size == 16


def test_a_folder_that_is_not_there(models: Mapping[str, str]):
    with pytest.raises(InputError, match="/nowhere/model"):
        load_unclip(["file:/nowhere/model"])
    with pytest.raises(InputError, match="no model was given"):
        load_unclip([])


def test_a_folder_that_holds_no_model(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=str(tmp_path)):
        load_unclip([str(tmp_path)])


def test_two_of_a_kind(models: Mapping[str, str]):
    with pytest.raises(InputError, match="two models of kind 'prior'"):
        load_unclip([models["prior"], *models.values()])


def test_damaged_weights(models: Mapping[str, str], tmp_path: Path):
    folder = tmp_path / "prior"
    shutil.copytree(models["prior"], folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(RefusedError, match=r"model\.safetensors"):
        load_unclip([str(folder), models["decoder"], models["upsampler"]])


def test_parts_of_different_sizes(models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path):
    config = replace(tiny.NETWORKS["upsampler"][1], low_size=8)
    upsampler = tiny.write_part(tmp_path / "upsampler", "upsampler", None, network_config=config)
    with pytest.raises(InputError, match=r"16 but the upsampler's low_size is 8"):
        load_unclip([models["prior"], models["decoder"], str(upsampler)])


def test_two_upsamplers_are_ordered_by_size(models: Mapping[str, str], second: str):
    unclip = load_unclip([second, *models.values()])
    sizes = [(part.network.config.low_size, part.network.config.high_size) for part in unclip.upsamplers]
    assert sizes == [(16, 32), (32, 64)]
    assert list(unclip.parts) == ["prior", "decoder", "upsampler", "second_upsampler"]
    assert unclip.parts["second_upsampler"].schedule_config.name == "linear"
    assert unclip.image_size == 64


def test_upsamplers_that_do_not_fit_are_refused_naming_both_sizes(models: Mapping[str, str], second: str):
    with pytest.raises(InputError, match=r"16 → 32 pixels, the other 16 → 32"):
        load_unclip([models["upsampler"], *models.values()])
    with pytest.raises(InputError, match="picture size is 16 but the upsampler's low_size is 32"):
        load_unclip([models["prior"], models["decoder"], second])
    with pytest.raises(InputError, match="3 upsamplers were given; 2 are the most"):
        load_unclip([models["upsampler"], second, *models.values()])
