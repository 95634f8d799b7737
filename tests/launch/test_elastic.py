"""An elastic training takes machines that come and goes on without those that leave: the same order and losses."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from keys_recorded import (
    history,
    newest_attempt,
    newest_step,
    run_recorded_in_float64,
    wait_for_next_attempt,
    wait_for_recorded_step,
)
from living_nodes import BUCKET, start_driver, workers_nodes
from nodes import can_have_nodes
from picture_shards import write_shards
from processes import run_ranks_with
from tiny_recipes import UPSAMPLER
from toy_training import losses

from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.storage import download_tree
from dalle2_train.training.goodput import read_attempts

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not can_have_nodes(), reason="needs root and iproute2"),
]  # fmt: skip
SETTINGS = ("training.sample_every_steps=0", "training.num_steps=1200", "training.checkpoint_every_steps=20",
            "training.precision=fp32", "workers.resize_seconds=5", "workers.start_timeout_seconds=30")  # fmt: skip
CLOSE = 1e-9


def test_a_machine_comes_and_one_goes(tmp_path: Path):
    """In float64: two ranks add up in another order than one, and nothing else may differ."""
    recipe = load_recipe("upsampler/tiny", (*UPSAMPLER, *SETTINGS))
    alone = TrainJob(recipe, write_shards(tmp_path / "set"), str(tmp_path), "alone")
    assert [code for code, _ in run_ranks_with(alone, 1, work=run_recorded_in_float64)] == [0]
    with workers_nodes(tmp_path, 1) as cluster:
        job, keys = replace(alone, storage=BUCKET, name="elastic"), tmp_path / "keys" / "elastic"
        cluster.environment["DALLE2_TEST_WORK"] = run_recorded_in_float64.__name__
        driver = start_driver(cluster, job, SETTINGS, "1:2")
        wait_for_recorded_step(keys, 20, driver)
        first, came = newest_attempt(keys), cluster.start(1)
        wait_for_next_attempt(keys, first, driver)
        wait_for_recorded_step(keys, newest_step(keys) + 50, driver)
        cluster.kill(came)
        assert driver.wait(300) == 0
        attempts = read_attempts(job.run_uri)
        download_tree(job.run_uri, tmp_path / "elastic")
    sizes = [attempt.world_size for attempt in attempts]
    assert sizes[0] == 1 and 2 in sizes and sizes[-1] == 1, sizes
    # What two did is in the history: the last began from a checkpoint of theirs.
    assert attempts[-1].resumed_from > attempts[sizes.index(2)].resumed_from
    assert history(keys) == history(Path(alone.run_uri) / "keys")
    ours, theirs = (np.array(losses(str(run))) for run in (tmp_path / "elastic", Path(alone.run_uri)))
    np.testing.assert_allclose(ours, theirs, rtol=CLOSE)
    assert len(ours) == 1200
