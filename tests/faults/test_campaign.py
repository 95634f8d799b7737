"""A few trials of every class: the whole campaign takes hours (`make faults`)."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import checkpoint_cut
import checkpoint_flip
import driver_kill
import living
import living_nodes
import node_drained
import node_kill
import resize
import storage_away
import worker_frozen
import worker_kill
import worker_terminated
from campaign import lines_of
from nodes import can_have_nodes
from report import BEGIN, DOCS, FOLDER, PROMISES, table

from dalle2_train.training.goodput import Attempt

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]
system = pytest.mark.system


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@system
def test_checkpoints_that_are_cut(tmp_path: Path):
    trials = checkpoint_cut.CutTrials(tmp_path)
    assert {place.is_remote for place in trials.places} == {False, True}
    for seed in range(0, len(trials.places), len(trials.places) // 16):
        assert_kept(trials.run(seed))
    trials.close()


@system
def test_checkpoints_with_a_flipped_bit(tmp_path: Path):
    trials = checkpoint_flip.FlipTrials(tmp_path)
    for seed in range(6):
        assert_kept(trials.run(seed))


@system
def test_trainings_that_change_their_size(tmp_path: Path):
    trials = resize.ResizeTrials(tmp_path)
    for seed in (100, 101):
        assert_kept(trials.run(seed))


@system
@pytest.mark.parametrize("kind", ["errors", "resets"])
def test_storage_that_fails(tmp_path: Path, kind: str):
    trials = storage_away.StorageTrials(tmp_path)
    try:
        assert_kept(trials.run(300 + storage_away.KINDS.index(kind)))
    finally:
        trials.close()


@system
def test_workers_that_are_killed_told_to_end_and_frozen(tmp_path: Path):
    """One living training of two workers on Ray: each in turn."""
    acts = (psutil.Process.kill, psutil.Process.terminate, psutil.Process.suspend)
    judges = (worker_kill.judge, worker_terminated.judge, worker_frozen.judge)
    judged: list[Any] = []

    def judge(*attempts: Any) -> Any:
        judged.append(judges[len(judged)](*attempts))
        return judged[-1]

    trials = living.LivingTrials(
        "mixed", tmp_path, lambda worker, seed: acts[seed % 3](worker), judge,
        f"training.step_deadline_seconds={worker_frozen.DEADLINE}", together=3,
    )  # fmt: skip
    try:
        for seed in (300, 301, 302):
            assert_kept(trials.run(seed))
    finally:
        trials.close()


@system
def test_a_driver_that_is_killed(tmp_path: Path):
    trials = driver_kill.DriverTrials(tmp_path, together=1)
    assert_kept(trials.run(100))


@system
@pytest.mark.skipif(not can_have_nodes(), reason="needs root and iproute2")
def test_nodes_that_are_killed_and_drained(tmp_path: Path):
    """One living training on two nodes with an S3: one is killed, then one drained."""
    acts, judges, judged = (node_kill.act, node_drained.act), (node_kill.judge, node_drained.judge), []

    def judge(*attempts: Any) -> Any:
        judged.append(judges[len(judged)](*attempts))
        return judged[-1]

    def act(cluster: Any, node: Any, node_id: str, seed: int) -> Any:
        return acts[seed % 2](cluster, node, node_id, seed)

    trials = living_nodes.NodeTrials("mixed", tmp_path, act, judge, together=2, between=100)
    try:
        for seed in (224, 225):  # both soon
            assert_kept(trials.run(seed))
    finally:
        trials.close()


def test_a_fault_is_judged_by_the_attempts_around_it_whatever_crashed_in_between():
    attempts = [Attempt(began, 8 * began, 2, began + 9, 0) for began in (0, 10, 20, 30)]
    assert living_nodes.around(9.0, attempts) == (attempts[0], attempts[1])
    assert living_nodes.around(25.0, attempts) == (attempts[2], attempts[3])


def test_workers_that_crash_are_told_from_those_that_are_ended():
    told = "\x1b[36m(RayTrainWorker pid={})\x1b[0m *** {} received at time=1795771500 on cpu 0 ***\n"
    deaths = [("113, ip=10.203.1.5", "SIGABRT"), ("113, ip=10.203.1.5", "SIGABRT"), ("113", "SIGSEGV"),
              ("88, ip=10.203.1.5", "SIGTERM")]  # fmt: skip
    assert living_nodes.num_crashed("".join(told.format(*death) for death in deaths)) == 2


@pytest.mark.parametrize("name", PROMISES)
def test_the_trials_on_record_have_all_kept_their_promise(name: str):
    lines = lines_of(FOLDER / f"{name}.jsonl")
    seeds = [line["seed"] for line in lines]
    assert sorted(seeds) == list(range(len(seeds))) and len(seeds) <= PROMISES[name][1]
    assert [line["seed"] for line in lines if not (line["done"] and line["kept"])] == []


def test_the_documents_table_is_of_the_trials_on_record():
    assert f"{BEGIN}\n{table()}\n" in DOCS.read_text()


def assert_kept(line: dict[str, Any]) -> None:
    assert line["kept"], line
