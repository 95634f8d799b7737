"""The commands that manipulate a picture: a grid, a line of JSON, and one message for what cannot be."""

import json
import runpy
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dalle2_train.checkpoints.manifest import publish_manifest, read_manifest
from dalle2_train.cli import main

TINY = Path(__file__).parent / "generation" / "tiny_unclip.py"
QUICK = [f"--set=generation.{stage}.num_steps=3" for stage in ("decoder", "upsampler")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    written: Mapping[str, str] = runpy.run_path(str(TINY))["write_models"](tmp_path_factory.mktemp("models"))
    return list(written.values())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A picture, another one, and a mask of the right half of the first."""
    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    mask = Image.new("L", (30, 20))
    mask.paste(255, (15, 0, 30, 20))
    mask.save(tmp_path / "mask.png")
    return {name: str(tmp_path / f"{name}.png") for name in ("one", "two", "mask", "grid")}


def arguments(command: str, files: Mapping[str, str], models: list[str], data: str = "") -> list[str]:
    of_command = {
        "vary": [files["one"], *models, "--eta", "0.5,1", "--samples", "2", "--refinements", "1"],
        "interpolate": [files["one"], files["two"], *models, "--steps", "3"],
        "textdiff": [files["one"], *models, "--from", "a red heart", "--into", "a small cat", "--theta", "0,0.3"],
        "inpaint": [files["one"], *models, "--mask", files["mask"], "--prompt", "a red heart", "--samples", "2",
                    "--set=generation.prior.num_steps=3"],
        "probe": [files["one"], *models, "--data", data, "--components", "4,32"],
    }  # fmt: skip
    return [command, *of_command[command], "--to", files["grid"], "--json", *QUICK]


@pytest.fixture
def shards(tmp_path: Path, files: dict[str, str], capsys: pytest.CaptureFixture[str]) -> str:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (20, 20), (30 * i, 90, 200 - 20 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"colour number {i}")
    assert main(["shards", "ingest", f"folder:{folder}", "--to", str(tmp_path / "shards")]) == 0
    capsys.readouterr()
    return str(tmp_path / "shards")


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("vary", {"eta": [0.5, 1.0], "samples": 2}),
        ("interpolate", {"steps": 3, "fixed_noise": False}),
        ("textdiff", {"from": "a red heart", "into": "a small cat", "theta": [0.0, 0.3]}),
        ("inpaint", {"prompt": "a red heart", "samples": 2}),
        ("probe", {"num_components": [4, 32], "samples": 2}),
    ],
)
def test_each_draws_a_grid_and_tells_what_it_did(
    command: str,
    told: dict[str, Any],
    files: dict[str, str],
    models: list[str],
    shards: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = arguments(command, files, models, shards)
    assert main([*asked, "--dry-run"]) == 0
    dry = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert dry["dry_run"] and not Path(files["grid"]).exists()
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told.items() <= found.items()
    assert found["to"] == files["grid"] and found["seed"] == 0
    with Image.open(files["grid"]) as grid:
        assert grid.format == "PNG" and grid.width > 2 * 192
    if command == "vary":
        assert {"reconstruction_psnr_db", "x_T_mean", "x_T_std"} <= set(found)


@pytest.mark.parametrize(
    ("command", "changed", "message"),
    [
        ("vary", ["--to", "grid.jpg"], "grid.jpg: the grid is a PNG"),
        ("vary", ["--set", "generation.decoder.sampler=ddpm"], "found and drawn from by ddim"),
        ("vary", ["--set", "evaluation.seed=1"], "give generation.KEY=VALUE"),
        ("vary", ["--set", "generation.decoder.eta=0.5"], "every column has its own"),
        ("vary", ["--eta", "0"], "each above 0"),
        (
            "vary",
            ["--set", "generation.prior.num_steps=9"],
            "generation.prior.num_steps=9 would have no effect",
        ),
        ("interpolate", ["--set", "generation.ar_prior.top_p=0.9"], "generation.ar_prior.top_p=0.9 would"),
        (
            "textdiff",
            ["--set", "generation.decoder.image_embed=none"],
            "generation.decoder.image_embed=none would",
        ),
        ("probe", ["--set", "generation.second_upsampler.num_steps=9"], "the model has 1 upsampler"),
        ("inpaint", ["--set", "generation.second_upsampler.num_steps=9"], "the model has 1 upsampler"),
        ("interpolate", ["--fixed-noise", "--refinements", "1"], "leave one out"),
        ("textdiff", ["--into", "a red heart"], "the same to CLIP"),
        ("inpaint", ["--mask", "none.png"], "none.png: there is no such picture"),
        ("inpaint", ["--set", "generation.decoder.num_steps=1001"], "was trained with 1000"),
        ("probe", ["--components", "33"], "33 components: the embedding has 32"),
        ("probe", ["--data", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_one_message(
    command: str, changed: list[str], message: str, files: dict[str, str], models: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for dry in ([], ["--dry-run"]):
        assert main([*arguments(command, files, models, str(tmp_path)), *changed, *dry]) == 2
        said = capsys.readouterr()
        assert said.out == "" and message in said.err and "Traceback" not in said.err
    assert not Path(files["grid"]).exists()


def test_in_painting_with_an_autoregressive_prior_beside_the_papers_decoder(
    models: list[str], files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The paper's preset samples a diffusion prior, which nobody asked for here."""
    clip, _, decoder, upsampler = models
    tiny = runpy.run_path(str(TINY))
    ar_prior = str(tiny["write_part"](tmp_path / "ar_prior", "ar_prior", Path(clip)))
    of_paper = tmp_path / "decoder"
    shutil.copytree(decoder, of_paper)
    publish_manifest(str(of_paper), replace(read_manifest(decoder), profile="paper"))
    asked = ["inpaint", files["one"], clip, ar_prior, str(of_paper), upsampler, "--mask", files["mask"],
             "--prompt", "a red heart", "--samples", "1", "--to", files["grid"], "--json", *QUICK]  # fmt: skip
    assert main([*asked, "--set", "generation.ar_prior.top_p=0.9"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0.4 < found["kept"] < 0.6 and len(found["known"]) == 2
    assert main([*asked, "--set", "generation.prior.num_steps=3"]) == 2
    assert "the prior is of kind ar_prior" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"), [("vary", "8 pictures in 2 rows; "), ("interpolate", "5 pictures\n")]
)
def test_people_are_told_how_many_pictures(
    command: str, said: str, files: dict[str, str], models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [argument for argument in arguments(command, files, models) if argument != "--json"]
    assert main(asked) == 0
    assert f"{files['grid']}: {said}" in capsys.readouterr().out
