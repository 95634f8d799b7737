"""The comparison in small: it goes on where it was killed, and ends with a table, its numbers and pictures."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dalle2_train.evaluation import EvaluationConfig
from pipelines.comparison import EMOJI, Plan, run

SMALL = ("training.global_batch_size=8", "data.block_size=4")
CLIP = ("model.encoder.embed_dim=32", "model.encoder.text_heads=2", "model.encoder.vision_width=32",
        "model.encoder.vision_heads=2", "model.encoder.image_size=16", "model.encoder.patch_size=8",
        "data.image_size=16", "training.num_steps=3")  # fmt: skip
OVERRIDES = {
    "direct": ("model.network.text_encoder.width=32", "model.network.text_encoder.num_heads=2",
               "model.network.num_heads=2", "model.network.depth=1"),
    "text-decoder": ("model.network.embed_dim=32", "model.network.channels=[32, 32, 32]"),
    "decoder": ("model.network.embed_dim=32", "model.network.channels=[32, 32, 32]"),
    "ar-prior": ("model.network.embed_dim=32", "model.network.depth=1", "model.network.num_dims=4"),
    "prior": ("model.network.embed_dim=32", "model.network.depth=1"),
    "upsampler": ("model.network.high_size=32", "data.image_size=32"),
}  # fmt: skip


def write_pictures(folder: Path) -> None:
    draws = np.random.default_rng(0)
    lines = ["file,caption,split"]
    for number in range(60):
        colour, count = ("red", "green", "blue")[number % 3], number // 3
        picture = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
        lines.append(f"{number:03d}.png,{colour} picture {count},{'train' if number % 4 else 'validation'}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")


def small_plan(pictures: Path) -> Plan:
    return replace(
        EMOJI,
        source=f"folder:{pictures}",
        clip=(*EMOJI.clip, *SMALL, *CLIP),
        networks={
            name: (*network, *SMALL, *OVERRIDES[name], "training.log_every_steps=1")
            for name, network in EMOJI.networks.items()
        },
        evaluation=EvaluationConfig(image_size=32, num_queries=4, gallery_size=8, scale=(), num_examples=2),
        cpu_seconds=2.0,
        threads=1,
    )


@pytest.mark.system
def test_killed_it_goes_on_and_ends_with_every_row(tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "comparison"
    pictures.mkdir()
    write_pictures(pictures)
    program = ("import sys; from pathlib import Path; sys.path[:0] = sys.argv[1:3]; from test_comparison import *; "
               "run(replace(small_plan(Path(sys.argv[3])), cpu_seconds=20.0), sys.argv[4])")  # fmt: skip
    places = [str(Path(__file__).parent), str(Path(__file__).parents[2]), str(pictures), str(folder)]
    child = subprocess.Popen([sys.executable, "-c", program, *places])
    while not list((folder / "runs" / "direct").glob("checkpoints/*/manifest.json")):
        assert child.poll() is None
        time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    plan = small_plan(pictures)
    result = run(replace(plan, cpu_seconds=20.0, networks={"direct": plan.networks["direct"]}, variants={
        "direct baseline": plan.variants["direct baseline"]}), str(folder))  # fmt: skip
    assert result["networks"]["direct"]["cpu_seconds"] == pytest.approx(20.0, rel=0.6)
    losses = (folder / "runs" / "direct" / "losses.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in losses]
    assert steps == list(range(1, result["networks"]["direct"]["num_steps"] + 1)), (
        "it went on, and did not begin anew"
    )

    whole = run(plan, str(tmp_path / "whole"))
    assert set(whole["variants"]) == set(EMOJI.variants)
    for label, variant in whole["variants"].items():
        assert set(variant["judge"]) >= {"train", "validation"}
        assert (variant["prior"] is not None) == ("prior" in label)
        assert variant["cpu_seconds"] == pytest.approx(
            sum(whole["networks"][name]["cpu_seconds"] for name in variant["networks"]), abs=0.3
        )
    table = (tmp_path / "whole" / "comparison.md").read_text()
    assert all(f"| {label} |" in table for label in EMOJI.variants)
    assert "| diffusion prior, decoder, guided | prior, decoder | 10 | 2 |" in table
    assert "| decoder on text only | text-decoder | 2 | 1 |" in table
    assert str(tmp_path / "whole") not in (tmp_path / "whole" / "comparison.json").read_text()
    with Image.open(tmp_path / "whole" / "comparison.png") as picture:
        assert picture.height > 10 * 32 and picture.width > 6 * 32
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "runs").rglob("*")}
    assert run(plan, str(tmp_path / "whole")) == whole
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "whole" / "runs").rglob("*")}
