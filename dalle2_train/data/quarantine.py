"""How much of a set may be faulty before a run stops, and which shard is to blame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.errors import RefusedError

FEWEST_FAULTY = 10
"""Samples an epoch; fewer stop nothing, or a tiny set could not have one bad sample."""


def is_too_much(num_faulty: int, num_met: int, num_samples: int, max_faulty: float) -> bool:
    """Are `num_faulty` of the `num_met` samples that a run came to, of a set of `num_samples`, more than is allowed?

    max_faulty: share. Whoever goes through a small set many times meets the same faults many times.
    """
    num_epochs = max(1.0, num_met / num_samples)
    return num_faulty > max(max_faulty * num_met, FEWEST_FAULTY * num_epochs)


def refuse_losses(ledgers: Iterable[Ledger], faults: Iterable[Fault], max_faulty: float) -> None:
    """RefusedError where `faults`, all that is known of the sets beforehand, are more than is allowed."""
    expected = sum(ledger.expected for ledger in ledgers)
    lost: Counter[str] = Counter()
    for fault in faults:
        lost[fault.shard] += fault.num_samples
    if not is_too_much(lost.total(), expected, max(1, expected), max_faulty):
        return
    shard, count = lost.most_common(1)[0]
    raise RefusedError(
        f"{lost.total()} of {expected} samples are lost or faulty by what the manifest tells, more than "
        f"data.max_faulty={max_faulty:g} allows; most of them, {count}, in {shard}. `shards check` names them: repair "
        "the set and index it again, or raise data.max_faulty"
    )
