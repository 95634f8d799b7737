"""Kills a random node of a training on Ray, raylet and workers at once, at a random step; another one comes.

    python tests/faults/node_kill.py --trials 20

Its network goes with it, so that nobody is told. A trial is kept where the run goes on to the keys and losses of two
undisturbed ranks, bit for bit, and where no checkpoint is left half written. What was seen is appended to
node_kill.jsonl beside this file; started again, it does the trials that are not there yet. Needs root and iproute2.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import conduct
from living_nodes import NodeTrials
from nodes import Node, Nodes

from dalle2_train.training.goodput import Attempt

RESULTS = Path(__file__).with_suffix(".jsonl")


def act(cluster: Nodes, node: Node, node_id: str, seed: int) -> None:
    cluster.kill(node)
    cluster.start(1)


def judge(before: Attempt, after: Attempt, moment: float) -> tuple[dict[str, Any], bool]:
    return {"resumed_from": after.resumed_from, "seconds_down": round(after.began - moment, 1)}, True


if __name__ == "__main__":
    conduct(RESULTS, lambda folder: NodeTrials("node-kill", folder, act, judge), 20, __doc__)
