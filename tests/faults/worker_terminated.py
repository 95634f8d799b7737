"""Tells a random worker of a training on Ray to terminate (SIGTERM), rank 0 included: what is done is saved first.

    python tests/faults/worker_terminated.py --trials 20

A trial is kept where at most one step was done again, and the run went on to the numbers of undisturbed ranks. What was
seen is appended to worker_terminated.jsonl beside this file; started again, it does the trials that are not there yet.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import conduct
from living import LivingTrials

from dalle2_train.training.goodput import Attempt

RESULTS = Path(__file__).with_suffix(".jsonl")


def judge(before: Attempt, after: Attempt, moment: float) -> tuple[dict[str, Any], bool]:
    repeated = before.step - after.resumed_from
    return {"repeated": repeated, "seconds_down": round(after.began - moment, 1)}, 0 <= repeated <= 1


if __name__ == "__main__":
    conduct(
        RESULTS,
        lambda folder: LivingTrials("worker-terminated", folder, lambda worker, _: worker.terminate(), judge),
        20,
        __doc__,
    )
