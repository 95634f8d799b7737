"""An elastic training takes machines that come and goes on without those that leave: the same order and losses."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from keys_recorded import history, newest_attempt, run_recorded, wait_for_recorded_step
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


def test_a_machine_comes_and_one_goes(tmp_path: Path):
    recipe = load_recipe("upsampler/tiny", (*UPSAMPLER, *SETTINGS))
    alone = TrainJob(recipe, write_shards(tmp_path / "set"), str(tmp_path), "alone")
    assert [code for code, _ in run_ranks_with(alone, 1, work=run_recorded)] == [0]
    with workers_nodes(tmp_path, 1) as cluster:
        job, keys = replace(alone, storage=BUCKET, name="elastic"), tmp_path / "keys" / "elastic"
        driver = start_driver(cluster, job, SETTINGS, "1:2")
        wait_for_recorded_step(keys, 20)
        first = newest_attempt(keys)
        came = cluster.start(1)
        while newest_attempt(keys) == first:
            assert driver.poll() is None
        second = newest_attempt(keys)
        wait_for_recorded_step(keys, _step_of(second) + 20)
        cluster.kill(came)
        assert driver.wait(300) == 0
        sizes = [attempt.world_size for attempt in read_attempts(job.run_uri)]
        download_tree(job.run_uri, tmp_path / "elastic")
    assert sizes[0] == 1 and 2 in sizes and sizes[-1] == 1, sizes
    assert history(keys) == history(Path(alone.run_uri) / "keys")
    # Ranks add up in another order; a short way at the least, for rounding grows with the steps.
    ours, theirs = (np.array(losses(str(run))) for run in (tmp_path / "elastic", Path(alone.run_uri)))
    np.testing.assert_allclose(ours[:60], theirs[:60], rtol=1e-3)
    assert len(ours) == len(theirs) == 1200


def _step_of(attempt: Path | None) -> int:
    assert attempt is not None
    lines = attempt.read_text().splitlines()
    return int(lines[0].split(",")[0].strip("[ ")) if lines else 0
