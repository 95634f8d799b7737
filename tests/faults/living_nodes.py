"""Trials that share a living training on nodes of their own: networks, processes, /tmp and /dev/shm are not shared.

Checkpoints go to an S3, records of what was trained on to a folder that all nodes see.
"""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from campaign import Trials
from keys_recorded import (
    KEYS,
    history,
    newest_attempt,
    run_recorded,
    wait_for_next_attempt,
    wait_for_recorded_step,
)
from left_over import left_over, missing_files
from nodes import Node, Nodes, nodes
from picture_shards import write_shards
from processes import run_ranks_with
from servers import object_store
from tiny_recipes import UPSAMPLER

from dalle2_train.checkpoints.layout import losses_uri
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.storage import read_bytes
from dalle2_train.storage.places import open_fs
from dalle2_train.training.goodput import Attempt, read_attempts

Act = Callable[[Nodes, Node, str, int], Callable[[], object] | None]
"""What is done to a node; (cluster, node, its id in Ray, seed). Returns what is done once the training has gone on."""
Judge = Callable[[Attempt, Attempt, float], tuple[dict[str, Any], bool]]

CHILD = Path(__file__).parents[1] / "support" / "driver_child.py"
EVERY, BUCKET = 8, "s3://runs"
SHARED = "parallel.shard=2"
"""Both ranks share the weights, whether they are on one machine or on two: sums are then of the same parts."""
# Ray finds out that a node is gone in 3 s rather than in 30.
QUICK = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "1000",
         "RAY_health_check_failure_threshold": "3",
         # Every crash is told.
         "RAY_DEDUP_LOGS": "0"}  # fmt: skip


@contextmanager
def workers_nodes(folder: Path, count: int = 2) -> Iterator[Nodes]:
    """A head and so many nodes with room for a worker each, and an S3 that they and this process see."""
    with ExitStack() as stack:
        cluster = stack.enter_context(nodes(folder, **QUICK))
        url = stack.enter_context(object_store(cluster.address))
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_ENDPOINT_URL": url}
        stack.enter_context(patch.dict(os.environ, keys))
        cluster.environment.update(keys, **{KEYS: str(folder / "keys")})
        open_fs(BUCKET)[0].mkdir(BUCKET)
        cluster.start(0)
        cluster.wait(1)
        for _ in range(count):
            cluster.start(1)
        cluster.wait(1 + count)
        yield cluster


def start_driver(
    cluster: Nodes, job: TrainJob, settings: Sequence[str], workers: str = "2"
) -> subprocess.Popen[str]:
    """On the head; what it says goes to JOB.log."""
    command = [sys.executable, str(CHILD), job.storage, job.name, job.data, workers, *settings]
    with (cluster.folder / f"{job.name}.log").open("w") as log:
        return cluster.popen(cluster.head, command, stdout=log, stderr=subprocess.STDOUT)


class NodeTrials(Trials):
    """So many trials as `together` are one training of two workers, which is compared in the end with the same two
    ranks left alone: the keys of all steps, and every loss bit for bit; and of its folder nothing may be left over.

    Workers that crash by themselves, without a hand of ours, are survived like any other fault. How many did in a
    trial's training is written down.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        act: Act,
        judge: Judge,
        together: int = 10,
        between: int = 25,
        *settings: str,
    ) -> None:
        self.name, self.folder, self._act, self._judge = name, folder, act, judge
        self._together, self._between = together, between
        self._settings = (
            "training.sample_every_steps=0", f"training.num_steps={between * (together + 1)}",
            f"training.checkpoint_every_steps={EVERY}", SHARED, *settings,
        )  # fmt: skip
        recipe = load_recipe("upsampler/tiny", (*UPSAMPLER, *self._settings))
        self.whole = TrainJob(recipe, write_shards(folder / "set"), str(folder), "whole")
        assert [code for code, _ in run_ranks_with(self.whole, 2, 900, run_recorded)] == [0, 0]
        self._found: dict[int, dict[str, Any]] = {}
        self._stack = ExitStack()
        self.cluster = self._stack.enter_context(workers_nodes(folder))

    def close(self) -> None:
        self._stack.close()

    def run(self, seed: int) -> dict[str, Any]:
        if seed not in self._found:
            self._found = self._training(seed - seed % self._together)
        return self._found[seed]

    def _training(self, first: int) -> dict[int, dict[str, Any]]:
        job = replace(self.whole, name=f"{self.name}-{first}", storage=BUCKET)
        driver = start_driver(self.cluster, job, self._settings)
        moments = []
        for number in range(self._together):
            draws = random.Random(first + number)
            node, ids = draws.choice(self.cluster.nodes[1:]), self.cluster.wait(len(self.cluster.nodes))
            step = self._between * number + draws.randrange(10, 5 + self._between)
            keys = self.folder / "keys" / job.name
            wait_for_recorded_step(keys, step, driver)
            disturbed = newest_attempt(keys)
            moments.append(time.time())
            afterwards = self._act(self.cluster, node, ids[node.address], first + number)
            wait_for_next_attempt(keys, disturbed, driver)
            if afterwards is not None:
                afterwards()
        code = driver.wait(900)
        return self._judged(job, first, moments, code == 0 and self._is_same(job))

    def _judged(
        self, job: TrainJob, first: int, moments: list[float], is_same: bool
    ) -> dict[int, dict[str, Any]]:
        left, missing, attempts = left_over(job), missing_files(job), read_attempts(job.run_uri)
        crashes = num_crashed((self.folder / f"{job.name}.log").read_text())
        pairs = [around(moment, attempts) for moment in moments]
        assert len({id(after) for _, after in pairs}) == len(pairs), (attempts, moments)
        assert 0 <= len(attempts) - (len(moments) + 1) <= crashes, (attempts, moments, crashes)
        found = {}
        for seed, (moment, (before, after)) in enumerate(zip(moments, pairs, strict=True), first):
            seen, kept = self._judge(before, after, moment)
            found[seed] = {
                "class": self.name, "seed": seed, "done": True,
                "seen": {**seen, "left_over": left, "missing": missing, "crashes_of_training": crashes},
                "kept": kept and is_same and not left and not missing,
            }  # fmt: skip
        return found

    def _is_same(self, job: TrainJob) -> bool:
        texts = [read_bytes(losses_uri(one.run_uri)) for one in (job, self.whole)]
        ours = history(self.folder / "keys" / job.name)
        return texts[0] == texts[1] and ours == history(Path(self.whole.run_uri) / "keys")


def around(moment: float, attempts: Sequence[Attempt]) -> tuple[Attempt, Attempt]:
    """The attempt that was going on at that moment, and the one that came next."""
    later = sum(attempt.began <= moment for attempt in attempts)
    assert 0 < later < len(attempts), (attempts, moment)
    return attempts[later - 1], attempts[later]


def num_crashed(log: str) -> int:
    """Workers that a driver's log tells to have died of a fault of their own, rather than of SIGKILL or SIGTERM."""
    told = r"pid=(\d+)(?:, ip=([\d.]+))?\).*\*\*\* SIG(?:ABRT|BUS|FPE|ILL|SEGV) received"
    return len(set(re.findall(told, log)))
