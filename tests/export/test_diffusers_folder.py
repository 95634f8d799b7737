"""diffusers' UnCLIPPipeline has to draw our pictures; what it cannot hold is refused by name."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import karlo_folders
import pytest
import torch
from safetensors.torch import load_file, save_file

from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export import diffusers_folder, export_diffusers, proof
from dalle2_train.export.diffusers_names import IMAGE_VARIATION
from dalle2_train.export.exportable import load_exportable
from dalle2_train.export.import_folder import import_diffusers
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.unclip import Unclip

FAST = proof.PROOF_CONFIG
LAST_BIT = 6e-8  # of a float32 below 1: diffusers rounds its pictures to it at the end

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs, at import


def written(unclip: Unclip, folder: Path) -> Path:
    diffusers_folder.write_folder(unclip, folder, "0.42.1")
    return folder


@pytest.mark.slow
def test_a_fresh_process_draws_our_pictures_with_the_exported_folder(
    models: Mapping[str, str], tmp_path: Path
):
    export = export_diffusers(list(models.values()), str(tmp_path / "folder"), proof_config=FAST)
    report = json.loads((tmp_path / "folder" / "export.json").read_text())
    assert report["proof"]["max_abs_diff"] <= LAST_BIT
    assert report["models"] == export.models
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    # Again: there is nothing to do.
    assert (
        json.loads(json.dumps(export_diffusers(list(models.values()), export.path).proof)) == report["proof"]
    )


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("prior_scale", "decoder_scale"), [(1.0, 1.0), (3.0, 1.0), (1.0, 2.0)])
def test_equal_pictures_whatever_is_guided(
    unclip: Unclip, tmp_path: Path, prior_scale: float, decoder_scale: float
):
    prior = replace(FAST.prior, guidance_scale=prior_scale)
    config = replace(FAST, prior=prior, decoder=replace(FAST.decoder, guidance_scale=decoder_scale))
    proved = proof.prove(unclip, written(unclip, tmp_path / "folder"), ["a heart", "the sea"], config)
    assert proved.max_abs_diff <= LAST_BIT


@pytest.mark.usefixtures("in_process")
def test_other_objectives_and_numbers_of_timesteps(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path
):
    """A decoder without a learned variance is held too: its spare channels are told to say "the smallest"."""
    clip = Path(models["clip"])
    parts = [
        tiny.write_part(tmp_path / "p", "prior", clip, objective=ObjectiveConfig("epsilon")),
        tiny.write_part(tmp_path / "d", "decoder", clip, objective=ObjectiveConfig("sample")),
        tiny.write_part(
            tmp_path / "u",
            "upsampler",
            None,
            objective=ObjectiveConfig("sample"),
            schedule=ScheduleConfig(num_steps=200),
        ),
    ]
    unclip = load_unclip([str(part) for part in parts])
    proved = proof.prove(unclip, written(unclip, tmp_path / "folder"), ["a heart", "the sea"], FAST)
    assert proved.max_abs_diff <= LAST_BIT


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("part", "name", "change"),
    [
        ("decoder", "conv_in.bias", "nudge"),
        ("text_proj", "learned_classifier_free_guidance_embeddings", "nudge"),
        ("prior", "prd_embedding", "drop"),
    ],
)
def test_a_folder_that_differs_is_refused_and_leaves_nothing(
    models: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    name: str,
    change: str,
):
    def write_and_damage(unclip: Unclip, folder: Path, *rest: str) -> None:
        write_folder(unclip, folder, *rest)
        file = folder / part / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        weights[name] = weights[name] + 1e-3
        if change == "drop":
            del weights[name]
        save_file(weights, file, metadata={"format": "pt"})

    write_folder = diffusers_folder.write_folder
    monkeypatch.setattr(diffusers_folder, "write_folder", write_and_damage)
    (tmp_path / "place").mkdir()
    with pytest.raises(RefusedError, match=r"other pictures|prd_embedding"):
        export_diffusers(list(models.values()), str(tmp_path / "place" / "folder"), proof_config=FAST)
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("prior", {"schedule": ScheduleConfig("linear")}, "prior's noise schedule is 'linear'"),
        ("upsampler", {"objective": ObjectiveConfig("v_prediction")}, "upsampler predicts 'v_prediction'"),
        (
            "decoder",
            {"objective": ObjectiveConfig("v_prediction", learned_variance=True)},
            "decoder predicts",
        ),
        (
            "prior",
            {"schedule": ScheduleConfig(zero_terminal_snr=True)},
            "prior's noise schedule has zero_terminal_snr",
        ),
        (
            "upsampler",
            {"objective": ObjectiveConfig(learned_variance=True)},
            "upsampler learned its variance",
        ),
        ("decoder", {"attention": (False, False)}, "no attention at any level"),
        # 48 + 16 tokens before 8 × 8 pixels: diffusers then forgets to pad the mask.
        ("decoder", {"num_extra_tokens": 48}, "context length 16 with 48 extra tokens"),
    ],
)
def test_what_diffusers_cannot_hold_is_refused_by_name(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path: Path, kind: str, changes: dict, message: str
):
    configs = {name: value for name, value in changes.items() if name in ("schedule", "objective")}
    network = replace(tiny.NETWORKS[kind][1], **{k: v for k, v in changes.items() if k not in configs})
    part = tiny.write_part(tmp_path / kind, kind, Path(models["clip"]), network_config=network, **configs)
    given = {**models, kind: str(part)}
    with pytest.raises(RefusedError, match=message):
        export_diffusers(list(given.values()), str(tmp_path / "folder"))
    assert not (tmp_path / "folder").exists()


def test_a_second_upsampler_is_refused_by_its_sizes(models: Mapping[str, str], second: str, tmp_path: Path):
    with pytest.raises(RefusedError, match=r"two upsamplers \(16 → 32 and 32 → 64\)"):
        export_diffusers([*models.values(), second], str(tmp_path / "folder"))
    assert not (tmp_path / "folder").exists()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_variations_of_a_picture_are_theirs(models: Mapping[str, str], tmp_path: Path, scale: float):
    unclip = load_exportable([models["decoder"], models["upsampler"]], IMAGE_VARIATION)
    assert unclip.prior is None
    diffusers_folder.write_folder(unclip, tmp_path / "folder", "0.42.1", IMAGE_VARIATION)
    config = replace(FAST, decoder=replace(FAST.decoder, guidance_scale=scale))
    proved = proof.prove(unclip, tmp_path / "folder", [], config)
    assert proved.max_abs_diff <= LAST_BIT and proved.prompts == ()


@pytest.mark.slow
def test_a_fresh_process_draws_our_variations(models: Mapping[str, str], tmp_path: Path):
    parts = [models["decoder"], models["upsampler"]]
    export = export_diffusers(parts, str(tmp_path / "folder"), pipeline=IMAGE_VARIATION, proof_config=FAST)
    assert export.proof["max_abs_diff"] <= LAST_BIT
    with pytest.raises(InputError, match="something is there already"):
        export_diffusers(list(models.values()), str(tmp_path / "folder"), proof_config=FAST)


@pytest.mark.usefixtures("in_process")
def test_a_picture_prepared_otherwise_is_refused(models: Mapping[str, str], tmp_path: Path):
    unclip = load_exportable([models["decoder"], models["upsampler"]], IMAGE_VARIATION)
    diffusers_folder.write_folder(unclip, tmp_path / "folder", "0.42.1", IMAGE_VARIATION)
    file = tmp_path / "folder" / "feature_extractor" / "preprocessor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(RefusedError, match="feature_extractor"):
        proof.prove(unclip, tmp_path / "folder", [], FAST)


def test_variations_need_the_image_tower(models: Mapping[str, str], tmp_path: Path):
    theirs = karlo_folders.write_pipeline(tmp_path / "theirs")
    ours = import_diffusers(str(theirs), str(tmp_path / "ours")).path
    with pytest.raises(RefusedError, match="no image tower"):
        export_diffusers([ours], str(tmp_path / "out"), pipeline=IMAGE_VARIATION)


@pytest.mark.usefixtures("in_process")
def test_the_last_step_is_another_networks_in_both(tmp_path: Path):
    theirs = karlo_folders.write_pipeline(tmp_path / "theirs")
    unclip = load_unclip([import_diffusers(str(theirs), str(tmp_path / "ours")).path])
    folder = written(unclip, tmp_path / "folder")
    assert proof.prove(unclip, folder, ["a heart", "the sea"], FAST).max_abs_diff <= LAST_BIT
    with pytest.raises(RefusedError, match="other pictures"):
        proof.prove(without_last(unclip), folder, ["a heart", "the sea"], FAST)


def without_last(unclip: Unclip) -> Unclip:
    (part,) = unclip.upsamplers
    assert part.last is not None
    return replace(unclip, upsamplers=(replace(part, last=None),))


def test_bad_inputs(models: Mapping[str, str], tmp_path: Path):
    with pytest.raises(InputError, match="'upsampler'"):
        export_diffusers([models["prior"], models["decoder"]], str(tmp_path / "folder"))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match="something is there already"):
        export_diffusers(list(models.values()), str(tmp_path / "taken"))
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_text_half_of_the_clip_is_written_whole(unclip: Unclip, tmp_path: Path):
    from transformers import CLIPTextModelWithProjection

    folder = written(unclip, tmp_path / "folder")
    theirs = CLIPTextModelWithProjection.from_pretrained(str(folder / "text_encoder")).eval()
    token_ids, mask = unclip.clip.tokenize(["a red heart", ""])
    ours = unclip.clip.encode_text(token_ids, mask)
    with torch.no_grad():
        output = theirs(token_ids)
    torch.testing.assert_close(ours.text_embed, output.text_embeds)
    torch.testing.assert_close(ours.text_encodings, output.last_hidden_state)
