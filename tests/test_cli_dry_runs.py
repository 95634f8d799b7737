"""A dry run refuses what the run itself would refuse, in the same words."""

import json
import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dalle2_train.checkpoints.manifest import publish_manifest, read_manifest
from dalle2_train.cli import main
from dalle2_train.export import export_release

TINY = Path(__file__).parent / "generation" / "tiny_unclip.py"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Names in the arguments → folders; FREE is none yet, FULL holds something else."""
    folder = tmp_path_factory.mktemp("models")
    models: Mapping[str, str] = runpy.run_path(str(TINY))["write_models"](folder)
    release = export_release(list(models.values()), str(folder / "release")).path
    (folder / "full").mkdir()
    (folder / "full" / "file").write_text("somebody's")
    (folder / "pictures").mkdir()
    lines = ["file,caption,split"]
    for number in range(4):
        Image.new("RGB", (20, 20), (60 * number, 90, 200)).save(folder / "pictures" / f"{number}.png")
        lines.append(f"{number}.png,colour {number},{'validation' if number == 3 else 'train'}")
    (folder / "pictures" / "captions.csv").write_text("\n".join(lines) + "\n")
    assert main(["shards", "ingest", f"folder:{folder / 'pictures'}", "--to", str(folder / "shards")]) == 0
    named = {kind.upper(): place for kind, place in models.items()}
    return {**named, "RELEASE": release, "FULL": str(folder / "full"), "SHARDS": str(folder / "shards")}


SAMPLE = ("sample", "RELEASE", "--prompt", "x", "--to", "FREE.png")
CALIBRATE = ("calibrate", "PRIOR", "--data", "SHARDS")
DIFFUSERS = ("--format", "diffusers", "--to")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*SAMPLE, "--set", "generation.prior.num_steps=1001"),
            "prior.num_steps=1001: the prior was trained with 1000",
        ),
        ((*SAMPLE, "--set", "generation.prior.sampler=analytic_dpm"), "calibrate"),
        ((*SAMPLE, "--preset", "paper"), "calibrate"),
        (
            (*SAMPLE, "--set", "generation.upsampler.variance=learned_range"),
            "upsampler: variance=learned_range",
        ),
        ((*SAMPLE, "--set", "generation.decoder.image_embed=text"), "image_embed_norm"),
        (
            (*SAMPLE, "--set", "generation.second_upsampler.num_steps=3"),
            "generation.second_upsampler.num_steps=3",
        ),
        ((*SAMPLE, "--set", "generation.ar_prior.top_p=1"), "generation.ar_prior is set"),
        (("export", "RELEASE", "--format", "safetensors", "--to", "FULL"), "something is there already"),
        (("export", "RELEASE", *DIFFUSERS, "FULL"), "something is there already"),
        (
            ("export", "RELEASE", *DIFFUSERS, "FULL", "--pipeline", "image-variation"),
            "something is there already",
        ),
        (("export", "UPSAMPLER", *DIFFUSERS, "FULL"), "something is there already"),
        (("calibrate", "RELEASE/prior", "--data", "SHARDS"), "part of a release"),
        ((*CALIBRATE, "--set", "num_timesteps=1001"), "num_timesteps=1001: the prior was trained with 1000"),
        ((*CALIBRATE, "--set", "split=validation"), "split 'validation' has 1"),
        (("calibrate", "PRIOR", "--data", "FULL"), "holds no .tar shards"),
    ],
)
def test_a_dry_run_refuses_what_the_run_does(
    arguments: tuple[str, ...], message: str, places: Mapping[str, str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = list(arguments)
    for name, place in {**places, "FREE": str(tmp_path / "free")}.items():
        given = [argument.replace(name, place) for argument in given]
    said = []
    for dry in (["--dry-run"], []):
        assert main([*given, *dry]) == 2
        told = capsys.readouterr()
        assert told.out == "" and message in told.err and "Traceback" not in told.err
        said.append([line for line in told.err.splitlines() if line.startswith("dalle2-train:")])
    assert said[0] == said[1]
    assert not list(tmp_path.iterdir())


def test_what_would_be_done_passes(
    places: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        SAMPLE,
        CALIBRATE,
        ("export", "RELEASE", "--format", "safetensors", "--to", "FREE"),
        ("export", "RELEASE", "--format", "safetensors", "--to", "RELEASE"),
        ("export", "RELEASE", *DIFFUSERS, "FREE"),
        ("export", "UPSAMPLER", *DIFFUSERS, "FREE"),
    ):
        given = list(arguments)
        for name, place in {**places, "FREE": str(tmp_path / "free")}.items():
            given = [argument.replace(name, place) for argument in given]
        assert main([*given, "--dry-run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["dry_run"]
    assert not list(tmp_path.iterdir())


def test_a_damaged_export_is_told_by_a_dry_run(
    places: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [places[kind] for kind in ("CLIP", "PRIOR", "DECODER", "UPSAMPLER")]
    to = tmp_path / "release"
    asked = ["export", *parts, "--format", "safetensors", "--to", str(to)]
    assert main(asked) == 0 and main([*asked, "--dry-run"]) == 0
    manifest = read_manifest(str(to / "prior"))
    publish_manifest(str(to / "prior"), replace(manifest, step=manifest.step + 1))
    assert main([*asked, "--dry-run"]) == 3
    assert "prior/manifest.json is damaged" in capsys.readouterr().err
