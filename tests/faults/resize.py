"""Stops a training at random steps and goes on with another number of ranks: 1, 2 or 4.

    python tests/faults/resize.py --trials 30

A trial has three parts of different sizes. It is kept where the keys of all steps are those of one rank that was left
alone, and the losses, of a network in float64, within 1e-9 of its. What was seen is appended to resize.jsonl beside
this file, a line a trial; started again, it does the trials that are not there yet.
"""

import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
from campaign import Trials, conduct
from keys_recorded import history, run_recorded_in_float64
from picture_shards import write_shards
from processes import finish_ranks, start_ranks_with
from ray_workers import wait_for_step
from tiny_recipes import UPSAMPLER
from toy_training import losses

from dalle2_train.launch import TrainJob
from dalle2_train.recipe import load_recipe

RESULTS = Path(__file__).with_suffix(".jsonl")
NUM_STEPS, CLOSE = 60, 1e-9
SETTINGS = (
    *UPSAMPLER, "training.sample_every_steps=0", f"training.num_steps={NUM_STEPS}", "training.checkpoint_every_steps=7",
    "training.precision=fp32",
)  # fmt: skip


class ResizeTrials(Trials):
    """Shares the shards and the run of one rank."""

    def __init__(self, folder: Path) -> None:
        recipe = load_recipe("upsampler/tiny", SETTINGS)
        self.alone = TrainJob(recipe, write_shards(folder / "set"), str(folder), "alone")
        assert _train(self.alone, 1) == [0]

    def run(self, seed: int) -> dict[str, Any]:
        draws = random.Random(seed)
        job = replace(self.alone, name=f"trial-{seed}")
        sizes, ends = draws.sample((1, 2, 4), 3), sorted(draws.sample(range(5, NUM_STEPS - 5), 2))
        for size, end in zip(sizes, (*ends, None), strict=True):
            codes = _train(job, size, end)
        ours, theirs = (np.array(losses(one.run_uri)) for one in (job, self.alone))
        difference = float(np.max(np.abs(ours / theirs - 1))) if len(ours) == len(theirs) else float("inf")
        runs = [Path(one.run_uri) / "keys" for one in (job, self.alone)]
        is_same = history(runs[0]) == history(runs[1])
        shutil.rmtree(job.run_uri)
        return {
            "class": "resize", "seed": seed, "done": True,
            "seen": {"sizes": sizes, "stopped_at": ends, "same_keys": is_same, "largest_difference": difference},
            "kept": codes == [0] * sizes[-1] and is_same and difference <= CLOSE,
        }  # fmt: skip


def _train(job: TrainJob, size: int, end: int | None = None) -> list[int | None]:
    """The ranks' exit codes. end: about when rank 0 is told to stop."""
    run = Path(job.run_uri)
    ranks = start_ranks_with(job, size, run_recorded_in_float64)
    if end is not None:
        wait_for_step(run, end)
        ranks[0].terminate()
    return [code for code, _ in finish_ranks(run, ranks)]


if __name__ == "__main__":
    conduct(RESULTS, ResizeTrials, 30, __doc__)
