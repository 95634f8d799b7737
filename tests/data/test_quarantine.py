"""How much damage is too much."""

import pytest

from dalle2_train.data.faults import Fault
from dalle2_train.data.quarantine import is_too_much, refuse_losses
from dalle2_train.data.selection.selection import Ledger
from dalle2_train.errors import RefusedError


@pytest.mark.parametrize(
    ("num_faulty", "num_met", "num_samples", "is_over"),
    [
        (10, 10, 1_000_000, False),  # the fewest are always allowed
        (11, 11, 1_000_000, True),
        (11, 1_100, 1_000_000, False),  # a hundredth of what was met
        (12, 1_100, 1_000_000, True),
        (1, 20, 20, False),
        (1_000, 20_000, 20, False),  # the one bad sample of twenty, a thousand times
        (11_000, 20_000, 20, True),  # eleven of twenty
    ],
)
def test_the_share_is_of_what_was_met(num_faulty: int, num_met: int, num_samples: int, is_over: bool):
    assert is_too_much(num_faulty, num_met, num_samples, 0.01) is is_over


def test_known_losses_name_the_worst_shard():
    ledgers = [Ledger(500, 470, {}, {}), Ledger(500, 500, {}, {})]
    faults = [
        Fault("a.tar", None, "truncated", "", 12),
        *(Fault("b.tar", str(i), "pickle") for i in range(18)),
    ]
    with pytest.raises(RefusedError, match=r"30 of 1000 samples.*18, in b\.tar"):
        refuse_losses(ledgers, faults, 0.02)
    refuse_losses(ledgers, faults, 0.03)
    refuse_losses([Ledger(0, 0, {}, {})], [], 0.0)
