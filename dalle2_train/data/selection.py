"""The samples of a set that an epoch consists of, and the account of all others: expected = kept + filtered + faulty.

S shards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.faults import Fault
from dalle2_train.data.filters import FilterConfig, dropped
from dalle2_train.data.index import faulty_positions
from dalle2_train.data.manifest import ShardSet
from dalle2_train.errors import InputError

NO_FILTERS = FilterConfig()


class Place(NamedTuple):
    """A sample's shard and its position there."""

    shard: int
    position: int


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

    def place(self, number: int) -> Place:
        """Where the kept sample `number` lies."""
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        return Place(shard, int(self.positions[shard][number - self.starts[shard]]))


def select(shards: ShardSet, split: str | None, filters: FilterConfig = NO_FILTERS) -> Selection:
    """The samples of `split` (None: all) that pass the filters. A split that isn't there, or none left: InputError."""
    count = shards.manifest.count()
    if split is not None and not count.get(split):
        raise InputError(f"no samples in the split {split!r}; choose one that the set has: {count}")
    filtered: Counter[str] = Counter()
    faulty: Counter[str] = Counter()
    faults: list[Fault] = []
    positions = []
    for number, shard in enumerate(shards.manifest.shards):
        if shard.problem is not None or shard.num_lost:
            faults.append(
                Fault(shard.name, None, shard.problem or "count", f"{shard.num_lost} samples are lost")
            )
            faulty[shard.problem or "count"] += shard.num_lost
        index = shards.index(number)
        kept = np.ones(len(index), dtype=bool)
        for position, kind in faulty_positions(index):
            kept[position] = False
            faulty[kind] += 1
            faults.append(Fault(shard.name, index.keys[position], kind))
        if split is not None:
            _drop(kept, np.array(index.splits, dtype=object) != split, "split", filtered)
        for name, mask in dropped(index, filters):
            _drop(kept, mask, name, filtered)
        positions.append(np.flatnonzero(kept).astype(np.int32))
    starts = np.concatenate([[0], np.cumsum([len(kept) for kept in positions])]).astype(np.int64)
    expected = sum(max(shard.num_expected, shard.num_samples) for shard in shards.manifest.shards)
    ledger = Ledger(expected, int(starts[-1]), dict(filtered), {k: v for k, v in faulty.items() if v})
    if not starts[-1]:
        raise InputError(f"no sample is left to train on: {ledger.filtered} were filtered, {ledger.faulty} are faulty; "
                         "loosen data.filters, or repair the set")  # fmt: skip
    return Selection(tuple(positions), starts, ledger, tuple(faults))


def _drop(kept: NDArray[np.bool_], mask: NDArray[np.bool_], name: str, counts: Counter[str]) -> None:
    """Drop what is still kept and in the mask, and count it."""
    gone = kept & mask
    kept &= ~mask
    if gone.any():
        counts[name] += int(gone.sum())
