"""The samples of a set that an epoch consists of, and the account of all others: expected = kept + filtered + faulty.

S shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.account import Account
from dalle2_train.data.selection.filters import FilterConfig, Filters
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.shard_index import Place
from dalle2_train.errors import InputError

NO_FILTERS = FilterConfig()


@dataclass(frozen=True)
class Ledger:
    """Where every sample of a set has gone: `expected` = `kept` + all of `filtered` + all of `faulty`."""

    expected: int
    """Samples that the set's makers promise."""
    kept: int
    filtered: dict[str, int]
    """Filter, or "split" → samples that it dropped; one that several drop counts for the first."""
    faulty: dict[str, int]
    """Kind of fault → samples that are lost to it, as far as the manifest knows."""
    opt_out_sha256: str | None = None
    """Of the opt-out list that was followed."""


@dataclass(frozen=True)
class Selection:
    """The kept samples by number, shard after shard."""

    positions: tuple[NDArray[np.int32], ...]
    """Per shard, those of the kept samples."""
    starts: NDArray[np.int64]
    """(S + 1,) the number of the first kept sample of each shard, and at the end how many there are."""
    ledger: Ledger
    faults: tuple[Fault, ...]
    """The faults behind `ledger.faulty`; shards that lost samples have one each."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def digest(self) -> str:
        """SHA-256 of the kept places: another split, filter, score or opt-out list that changes them is other data."""
        found = sha256(self.starts.astype("<i8").tobytes())
        for positions in self.positions:
            found.update(positions.astype("<i4").tobytes())
        found.update((self.ledger.opt_out_sha256 or "").encode())
        return found.hexdigest()

    def place(self, number: int) -> Place:
        """Where the kept sample `number` lies."""
        return self.places([number])[0]

    def places(self, numbers: Sequence[int] | NDArray[np.int64]) -> list[Place]:
        """Where the kept samples `numbers` lie."""
        shards, positions = self.located(np.asarray(numbers, dtype=np.int64))
        return list(map(Place, shards.tolist(), positions.tolist()))

    def located(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(shards, positions) of the kept samples `numbers`, (N,) each."""
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        within, positions = numbers - self.starts[shards], np.empty_like(numbers)
        for shard in np.unique(shards):
            of_shard = shards == shard
            positions[of_shard] = self.positions[shard][within[of_shard]]
        return shards, positions


def select(shards: ShardSet, split: str | None, filters: FilterConfig = NO_FILTERS) -> Selection:
    """The samples of `split` (None: all) that pass the filters.

    A split that isn't there, a filter on what no record of it tells, or no sample left: InputError.
    """
    found = sort_out(shards, split, filters)
    if not len(found):
        raise InputError(
            f"no sample is left to train on: {found.ledger.filtered} were filtered, {found.ledger.faulty} are faulty; "
            "loosen data.filters, or repair the set"
        )
    return found


def sort_out(shards: ShardSet, split: str | None, filters: FilterConfig = NO_FILTERS) -> Selection:
    """`select`, which finds nothing wrong with an empty selection: its ledger says where all samples have gone."""
    count = shards.manifest.count()
    if split is not None and not count.get(split):
        raise InputError(f"no samples in the split {split!r}; choose one that the set has: {count}")
    ready, account = Filters(filters), Account(split)
    positions = []
    for number in range(len(shards)):
        kept = account.sort(shards, number, ready)
        positions.append(np.flatnonzero(kept).astype(np.int32))
    account.refuse_untold()
    starts = np.concatenate([[0], np.cumsum([len(kept) for kept in positions])]).astype(np.int64)
    list_sha256 = ready.opt_out.sha256 if ready.opt_out else None
    ledger = Ledger(
        account.expected, int(starts[-1]), dict(account.filtered), dict(account.faulty), list_sha256
    )
    return Selection(tuple(positions), starts, ledger, tuple(account.faults))
