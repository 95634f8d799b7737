"""Kills a random worker of a training on Ray at a random step, again and again, and compares with undisturbed ranks.

    python tests/faults/worker_kill.py --trials 50

What was seen is appended to worker_kill.jsonl beside this file, a line a trial, once the training that it was part of
has ended; started again, it does the trials that are not there yet.
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
    seen = {"resumed_from": after.resumed_from, "seconds_down": round(after.began - moment, 1)}
    return seen, True  # what it has to come to is asked of the whole training


if __name__ == "__main__":
    conduct(
        RESULTS,
        lambda folder: LivingTrials("worker-kill", folder, lambda worker, _: worker.kill(), judge),
        50,
        __doc__,
    )
