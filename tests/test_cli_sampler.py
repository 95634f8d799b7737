"""A release is sampled as it was judged, unless something else is said; what it is sampled with is told."""

import json
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalle2_train import storage
from dalle2_train.cli import main
from dalle2_train.cli.sampler import add_sampler
from dalle2_train.config import to_dict
from dalle2_train.evaluation import EvaluationReport, Reading, verified_digest
from dalle2_train.evaluation.output import report_uri
from dalle2_train.export import export_release
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.drawing import open_text_to_image
from dalle2_train.generation.manipulations.drawing import DEFAULTS
from dalle2_train.generation.presets import PRESETS, generation_config, preset
from dalle2_train.workflow.steps import sample_grid

TINY = Path(__file__).parent / "generation" / "tiny_unclip.py"
JUDGED = GenerationConfig(
    prior=PriorStageConfig("ddim", 3, eta=1.0, guidance_scale=1.0),
    decoder=DecoderStageConfig("ddim", 4, eta=1.0, guidance_scale=2.0),
    upsampler=UpsamplerStageConfig("ddim", 2, eta=1.0),
    batch_size=5,
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return runpy.run_path(str(TINY))["write_models"](tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def parts(models: Mapping[str, str]) -> list[str]:
    return list(models.values())


@pytest.fixture
def release(parts: list[str], tmp_path: Path) -> str:
    """With the report of an evaluation."""
    made = export_release(parts, str(tmp_path / "release"))
    write_report(made.path, verified_digest(made.path))
    return made.path


def write_report(model: str, digest: str, sampler: Mapping[str, Any] | None = None) -> None:
    report = EvaluationReport(
        model=model,
        model_digest=digest,
        data="/shards",
        questions="",
        seed=0,
        config={},
        counts={},
        sampler=dict(sampler or to_dict(JUDGED)),
        seconds={},
        judge=Reading({}, {}, {}),
        clip=None,
    )
    storage.publish_json(report_uri(model), report.to_json())


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """(JSON, stderr)."""
    assert main([*arguments, "--json"]) == 0
    said = capsys.readouterr()
    return json.loads(said.out.splitlines()[-1]), said.err


def sample(*models: str, to: str = "x.png") -> list[str]:
    return ["sample", *models, "--prompt", "a red heart", "--to", to]


def test_a_release_is_sampled_as_it_was_judged(
    release: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = str(tmp_path / "x.png")
    dry, said = run(capsys, *sample(release, to=to), "--dry-run")
    assert dry["generation"] == to_dict(JUDGED)
    assert dry["sampler_from"] == f"as evaluated (report {report_uri(release)})"
    assert f"sampler: as evaluated (report {report_uri(release)})\n" in said
    run(capsys, *sample(release, to=to))
    expected = str(tmp_path / "expected.png")
    sample_grid(open_text_to_image([release], JUDGED), ["a red heart"], expected)
    assert Path(to).read_bytes() == Path(expected).read_bytes()


def test_what_is_set_is_on_top_of_what_was_judged(release: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = run(capsys, *sample(release), "--set", "generation.decoder.num_steps=7", "--dry-run")
    assert found["generation"] == to_dict(replace(JUDGED, decoder=replace(JUDGED.decoder, num_steps=7)))
    assert ", changed by --set" in said


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_that_is_asked_for_is_taken_instead(
    release: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--set", "generation.prior.sampler=ddpm"]  # nobody has calibrated this prior
    found, said = run(capsys, *sample(release), "--preset", name, *quick, "--dry-run")
    expected = generation_config({"prior": {"sampler": "ddpm"}}, preset(name))
    assert found["generation"] == to_dict(expected)
    assert f"sampler: preset {name}, changed by --set" in said


def test_every_preset_can_be_asked_for() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_sampler(parser, "x")
    assert [parser.parse_args(["--preset", name]).preset for name in PRESETS] == list(PRESETS)


def test_people_read_what_a_dry_run_would_sample_with(
    release: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*sample(release), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (decoder,) = [line for line in lines if line.startswith("  generation.decoder:")]
    assert "sampler=ddim num_steps=4 eta=1.0 variance=null" in decoder and "guidance_scale=2.0" in decoder
    assert "  generation.batch_size: 5" in lines


def test_without_a_report_of_these_very_models_it_is_the_profiles(
    parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = export_release(parts, str(tmp_path / "release")).path
    found, said = run(capsys, *sample(made), "--dry-run")
    assert found["generation"] == to_dict(GenerationConfig()) and "sampler: preset karlo\n" in said
    write_report(made, "0" * 64)
    found, _ = run(capsys, *sample(made), "--dry-run")
    assert found["generation"] == to_dict(GenerationConfig())
    assert f"{report_uri(made)} is of other models" in caplog.text


def test_parts_that_were_judged_together_in_any_order(
    parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part for part in parts if not part.endswith("clip")]
    write_report(given[-1], verified_digest(given))
    try:
        found, _ = run(capsys, *sample(*given), "--dry-run")
        with_clip, _ = run(capsys, *sample(*parts), "--dry-run")
    finally:
        storage.remove(report_uri(given[-1]))
    assert found["generation"] == with_clip["generation"] == to_dict(JUDGED)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"format_version": 99}, "evaluate the model again, with --preset karlo or paper"),
        ({"sampler": {"decoder": {"number_of_steps": 3}}}, "number_of_steps"),
    ],
)
def test_a_report_that_cannot_be_read_is_told_with_the_way_out(
    release: str, damage: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = report_uri(release)
    storage.publish_json(uri, storage.read_json(uri) | damage)
    assert main([*sample(release), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert message in said and "--preset" in said and "Traceback" not in said
    run(capsys, *sample(release), "--preset", "karlo", "--dry-run")


def test_the_report_changes_no_digest(
    models: Mapping[str, str], release: str, parts: list[str], tmp_path: Path
) -> None:
    bare = export_release(parts, str(tmp_path / "bare"))
    assert verified_digest(release) == verified_digest(bare.path)
    assert Path(release, "unclip.json").read_bytes() == Path(bare.path, "unclip.json").read_bytes()


def test_manipulations_draw_as_judged_but_for_what_gives_a_picture_back(
    release: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    Image.new("RGB", (32, 32), (200, 90, 60)).save(picture)
    Image.new("L", (32, 32), 255).save(mask)
    to = ["--to", str(tmp_path / "grid.png"), "--dry-run"]
    varied, said = run(capsys, "vary", str(picture), release, *to)
    own = replace(JUDGED, decoder=DecoderStageConfig(**DEFAULTS["decoder"]))
    assert varied["generation"] == to_dict(own)
    assert "), but generation.decoder\n" in said
    painted, _ = run(
        capsys, "inpaint", str(picture), release, "--mask", str(mask), "--prompt", "a red heart", *to
    )
    assert painted["generation"] == to_dict(JUDGED)
