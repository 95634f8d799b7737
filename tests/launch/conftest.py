"""A small set of pictures, and a job that needs nothing else: an upsampler of two levels."""

import os
import sys

import pytest
from picture_shards import write_shards

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
    return write_shards(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def cluster():
    """One Ray for a whole module: to start it takes longer than to use it."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=True,
             runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}})  # fmt: skip
    yield
    ray.shutdown()


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
