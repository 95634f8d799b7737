"""Trials that share a living training of two workers on Ray: each does something to it, and it goes on by itself."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import ray
from campaign import Trials
from keys_recorded import history, run_recorded
from picture_shards import write_shards
from processes import run_ranks_with
from ray_workers import local_ray, wait_for_step, workers_of
from tiny_recipes import UPSAMPLER
from toy_training import losses

from dalle2_train.launch import TrainJob, WorkerCount
from dalle2_train.launch.ray_trainer import train_on_ray
from dalle2_train.recipe import load_recipe
from dalle2_train.training.goodput import Attempt, read_attempts

Act = Callable[[psutil.Process, int], object]
"""What is done to a worker; (its process, seed)."""
Judge = Callable[[Attempt, Attempt, float], tuple[dict[str, Any], bool]]
"""(the attempt that was disturbed, the next, when it was disturbed) → (what was seen, was the promise kept?)."""

STEPS_BETWEEN, EVERY = 25, 8
PATIENCE = 240.0


class LivingTrials(Trials):
    """So many trials as `together` are one training, which is compared in the end with the same two ranks left alone:
    the keys of all steps, and every loss bit for bit."""

    def __init__(
        self, name: str, folder: Path, act: Act, judge: Judge, *settings: str, together: int = 10
    ) -> None:
        self.name, self._act, self._judge, self._together = name, act, judge, together
        steps = f"training.num_steps={STEPS_BETWEEN * (together + 1)}"
        common = (*UPSAMPLER, "training.sample_every_steps=0", f"training.checkpoint_every_steps={EVERY}")
        recipe = load_recipe("upsampler/tiny", (*common, steps, *settings))
        self.job = TrainJob(recipe, write_shards(folder / "set"), str(folder), "whole")
        assert [code for code, _ in run_ranks_with(self.job, 2, work=run_recorded)] == [0, 0]
        self._found: dict[int, dict[str, Any]] = {}
        local_ray(2)

    def close(self) -> None:
        ray.shutdown()

    def run(self, seed: int) -> dict[str, Any]:
        if seed not in self._found:
            self._found = self._training(seed - seed % self._together)
        return self._found[seed]

    def _training(self, first: int) -> dict[int, dict[str, Any]]:
        job = replace(self.job, name=f"{self.name}-{first}")
        moments: list[float] = []
        disturb = threading.Thread(target=self._disturb, args=(job, first, moments), daemon=True)
        disturb.start()
        result = train_on_ray(job, WorkerCount.of(2), work=run_recorded)
        run, whole = Path(job.run_uri), Path(self.job.run_uri)
        is_same = losses(str(run)) == losses(str(whole)) and history(run / "keys") == history(whole / "keys")
        is_same = is_same and result.step == job.recipe.training.num_steps
        attempts = read_attempts(job.run_uri)
        assert len(attempts) == len(moments) + 1 == self._together + 1, (len(attempts), moments)
        found = {}
        for number, moment in enumerate(moments):
            seen, kept = self._judge(attempts[number], attempts[number + 1], moment)
            seed = first + number
            found[seed] = {
                "class": self.name,
                "seed": seed,
                "done": True,
                "seen": seen,
                "kept": kept and is_same,
            }
        return found

    def _disturb(self, job: TrainJob, first: int, moments: list[float]) -> None:
        """A random worker, each time the training has come to a random step behind the one before, anew."""
        run = Path(job.run_uri)
        for number in range(self._together):
            draws = random.Random(first + number)
            wait_for_step(run, STEPS_BETWEEN * number + draws.randrange(10, 5 + STEPS_BETWEEN))
            workers = workers_of()
            moments.append(time.time())
            self._act(draws.choice(workers), first + number)
            _, alive = psutil.wait_procs(workers, timeout=PATIENCE)
            assert not alive, "the workers of a disturbed training live on"
