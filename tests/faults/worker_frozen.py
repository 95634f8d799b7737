"""Freezes a random worker of a training on Ray (SIGSTOP) at a random step; the others find out within their deadline.

    python tests/faults/worker_frozen.py --trials 20

The deadline is 20 s here, by training.step_deadline_seconds. A trial is kept where the next attempt began within the
deadline and 60 s for the restart, and the run went on to the numbers of undisturbed ranks. What was seen is appended to
worker_frozen.jsonl beside this file; started again, it does the trials that are not there yet.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import conduct
from living import LivingTrials

from dalle2_train.training.goodput import Attempt

RESULTS = Path(__file__).with_suffix(".jsonl")
DEADLINE, RESTART = 20.0, 60.0


def judge(before: Attempt, after: Attempt, moment: float) -> tuple[dict[str, Any], bool]:
    seconds = after.began - moment
    return {
        "resumed_from": after.resumed_from,
        "seconds_down": round(seconds, 1),
    }, seconds <= DEADLINE + RESTART


def open_trials(folder: Path) -> LivingTrials:
    deadline = f"training.step_deadline_seconds={DEADLINE}"
    return LivingTrials("worker-frozen", folder, lambda worker, _: worker.suspend(), judge, deadline)


if __name__ == "__main__":
    conduct(RESULTS, open_trials, 20, __doc__)
