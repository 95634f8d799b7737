"""Kills the driver of a training on Ray at a random step, gives the same command again, and compares.

    python tests/faults/driver_kill.py --trials 20

Ten trials share one training of two workers. A trial is kept where the next start goes on from the newest checkpoint
that was committed when the driver died, and where in the end the keys of all steps and every loss are those of two
ranks left alone. What was seen is appended to driver_kill.jsonl beside this file; started again, it does
the trials that are not there yet.
"""

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import Trials, conduct
from keys_recorded import history, run_recorded
from picture_shards import write_shards
from processes import run_ranks_with
from ray_workers import wait_for_step, workers_of
from tiny_recipes import UPSAMPLER
from toy_training import losses

from dalle2_train.checkpoints.layout import committed_steps
from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe
from dalle2_train.training.goodput import read_attempts

RESULTS = Path(__file__).with_suffix(".jsonl")
CHILD = Path(__file__).parents[1] / "support" / "driver_child.py"
STEPS_BETWEEN, EVERY = 25, 8


class DriverTrials(Trials):
    """Shares the shards and the undisturbed run."""

    def __init__(self, folder: Path, together: int = 10) -> None:
        """together: trials that share one training."""
        self._together = together
        self._settings = ("training.sample_every_steps=0", f"training.checkpoint_every_steps={EVERY}",
                          f"training.num_steps={STEPS_BETWEEN * (together + 1)}")  # fmt: skip
        recipe = load_recipe("upsampler/tiny", (*UPSAMPLER, *self._settings))
        self.job = TrainJob(recipe, write_shards(folder / "set"), str(folder), "whole")
        assert [code for code, _ in run_ranks_with(self.job, 2, work=run_recorded)] == [0, 0]
        self._found: dict[int, dict[str, Any]] = {}

    def run(self, seed: int) -> dict[str, Any]:
        if seed not in self._found:
            self._found = self._training(seed - seed % self._together)
        return self._found[seed]

    def _training(self, first: int) -> dict[int, dict[str, Any]]:
        job = replace(self.job, name=f"killed-{first}")
        run, whole = Path(job.run_uri), Path(self.job.run_uri)
        committed = [self._kill(job, first + number, number) for number in range(self._together)]
        ended = self._start(job).wait(600)
        begun = [attempt.resumed_from for attempt in read_attempts(str(run))][1:]
        is_same = losses(str(run)) == losses(str(whole)) and history(run / "keys") == history(whole / "keys")
        return {
            first + number: {
                "class": "driver-kill", "seed": first + number, "done": True,
                "seen": {"committed": last, "resumed_from": start},
                "kept": ended == 0 and is_same and start == last,
            }
            for number, (last, start) in enumerate(zip(committed, begun, strict=True))
        }  # fmt: skip

    def _kill(self, job: TrainJob, seed: int, number: int) -> int:
        """Returns the step of the newest checkpoint that it left."""
        driver = self._start(job)
        # Behind the step at which it was killed before, which its record still holds.
        within = random.Random(seed).randrange(10, 5 + STEPS_BETWEEN)
        wait_for_step(Path(job.run_uri), STEPS_BETWEEN * number + within)
        driver.kill()
        driver.wait()
        # Its workers end by themselves; until then they may yet commit what they were writing.
        _wait_for_workers()
        return max(committed_steps(job.run_uri), default=0)

    def _start(self, job: TrainJob) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(CHILD), job.storage, job.name, job.data, "2", *self._settings]
        return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})


def _wait_for_workers() -> None:
    deadline = time.monotonic() + 120
    while workers_of(1):
        assert time.monotonic() < deadline, "workers outlive their driver"
        time.sleep(0.2)


if __name__ == "__main__":
    conduct(RESULTS, DriverTrials, 20, __doc__)
