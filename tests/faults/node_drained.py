"""Drains a random node of a training on Ray, as before a preemption, at a random step; another one comes.

    python tests/faults/node_drained.py --trials 10

A trial is kept where at most one step was done again, and the run went on to the keys and losses of two undisturbed
ranks. What was seen is appended to node_drained.jsonl beside this file; started again, it does the trials that are not
there yet. Needs root and iproute2.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from campaign import conduct
from living_nodes import NodeTrials
from nodes import Node, Nodes

from dalle2_train.training.goodput import Attempt

RESULTS = Path(__file__).with_suffix(".jsonl")
DEADLINE, BETWEEN, TOGETHER = 45, 150, 5
"""Seconds; steps from one to the next, some of which are done until the drain is known; trials that are a training."""


def act(cluster: Nodes, node: Node, node_id: str, seed: int) -> Callable[[], object]:
    cluster.run([
        f"{sys.prefix}/bin/ray", "drain-node", "--address", cluster.ray_address, "--node-id", node_id,
        "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the machine goes",
        "--deadline-remaining-seconds", str(DEADLINE),
    ])  # fmt: skip
    cluster.start(1)
    return lambda: cluster.kill(node)


def judge(before: Attempt, after: Attempt, moment: float) -> tuple[dict[str, Any], bool]:
    repeated = before.step - after.resumed_from
    # Less than none: it was killed before it could say how far it was, and went on from an older checkpoint.
    return {"repeated": repeated, "seconds_down": round(after.began - moment, 1)}, 0 <= repeated <= 1


if __name__ == "__main__":
    conduct(
        RESULTS,
        lambda folder: NodeTrials("node-drained", folder, act, judge, TOGETHER, BETWEEN),
        10,
        __doc__,
    )
