"""A small set of pictures, and a job that needs nothing else: an upsampler of two levels."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from dalle2_train.data.sources.ingest import ingest
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe

TINY = (
    "model.network.low_size=8",
    "model.network.high_size=16",
    "model.network.channels=[32, 32]",
    "data.image_size=16",
    "data.block_size=4",
    "training.global_batch_size=8",
    "training.log_every_steps=2",
    "training.num_threads=1",
    "sampling.num_samples=2",
    "sampling.num_steps=2",
)


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("pictures")
    draws = np.random.default_rng(0)
    lines = ["file,caption,split"]
    for number in range(40):
        Image.fromarray(draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
            folder / f"{number:03d}.png"
        )
        lines.append(f"{number:03d}.png,picture {number},{'train' if number % 5 else 'validation'}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    to = str(tmp_path_factory.mktemp("shards") / "set")
    ingest(f"folder:{folder}", to)
    return to


@pytest.fixture
def make_job(shards, tmp_path):
    """make_job(name, "training.num_steps=3", …, clip=…) → a job under this test's own storage."""

    def make(
        name: str, *settings: str, family: str = "upsampler", storage: str | None = None, **more
    ) -> TrainJob:
        recipe = load_recipe(f"{family}/tiny", [*(TINY if family == "upsampler" else ()), *settings])
        return TrainJob(
            recipe, data=more.pop("data", shards), storage=storage or str(tmp_path), name=name, **more
        )

    return make
