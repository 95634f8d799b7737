"""A small set of pictures, and a job that needs nothing else: an upsampler of two levels."""

import pytest
from picture_shards import write_shards
from ray_workers import local_ray
from tiny_recipes import UPSAMPLER

from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> str:
    return write_shards(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def cluster():
    """One Ray for a whole module: to start it takes longer than to use it."""
    import ray

    local_ray(2)
    yield
    ray.shutdown()


@pytest.fixture
def make_job(shards, tmp_path):
    """make_job(name, "training.num_steps=3", …, clip=…) → a job under this test's own storage."""

    def make(
        name: str, *settings: str, family: str = "upsampler", storage: str | None = None, **more
    ) -> TrainJob:
        recipe = load_recipe(f"{family}/tiny", [*(UPSAMPLER if family == "upsampler" else ()), *settings])
        return TrainJob(
            recipe, data=more.pop("data", shards), storage=storage or str(tmp_path), name=name, **more
        )

    return make
