"""Sorts the samples of one shard after another into kept, filtered and faulty, and counts where each goes.

N samples of a shard.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute

from dalle2_train.data.faults import Fault
from dalle2_train.data.selection.bounds import Mask
from dalle2_train.data.selection.filters import Filters, Verdict
from dalle2_train.data.shards.manifest import Shard, ShardSet
from dalle2_train.data.shards.shard_index import ShardIndex, faulty_positions
from dalle2_train.errors import InputError

pc: Any = pyarrow.compute  # its functions come into being when it is imported
_REMEDIES = {"nsfw_score": "run `dalle2-train shards score` on the set first"}


class Account:
    """Of one pass over the shards of a set, in their order."""

    def __init__(self, split: str | None) -> None:
        self.split = split
        self.expected, self.looked_at = 0, 0
        self.filtered: Counter[str] = Counter()
        self.faulty: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.told: dict[tuple[str, str], bool] = {}

    def sort(self, shards: ShardSet, number: int, filters: Filters) -> Mask:
        """(N,) which samples of the shard of that number are kept."""
        name, index = shards.name(number), shards.index(number)
        self._lose(name, shards.manifest.shards[number])
        kept = self._whole(name, index)
        if self.split is not None:
            others = pc.not_equal(index.table.column("split"), self.split).to_numpy()
            self._drop(kept, others, "split")
        looked_at = kept.copy()
        self.looked_at += int(looked_at.sum())
        for verdict in filters.verdicts(index):
            self._apply(verdict, kept, looked_at)
        for verdict in filters.duplicates(index, kept):
            self._apply(verdict, kept, looked_at)
        return kept

    def refuse_untold(self) -> None:
        """A filter that drops all that it looks at, because nobody tells what it asks for, is a slip."""
        for (name, column), told in self.told.items():
            if self.looked_at and not told:
                where = "set" if self.split is None else f"split {self.split!r}"
                raise InputError(
                    f"data.filters.{name} asks for {column!r}, which no record of the {where} tells; "
                    f"{_REMEDIES.get(column, 'take other shards, whose json records tell it')}, or leave the filter out"
                )

    def _lose(self, name: str, shard: Shard) -> None:
        self.expected += max(shard.num_expected, shard.num_samples)
        if shard.problem is not None or shard.num_lost:
            kind = shard.problem or "count"
            reason = f"{shard.num_lost} samples are lost"
            self.faults.append(Fault(name, None, kind, reason, shard.num_lost))
            self._count(self.faulty, kind, shard.num_lost)

    def _whole(self, name: str, index: ShardIndex) -> Mask:
        kept = np.ones(len(index), dtype=bool)
        for position, kind in faulty_positions(index):
            kept[position] = False
            self._count(self.faulty, kind, 1)
            self.faults.append(Fault(name, index.keys[position], kind))
        return kept

    def _apply(self, verdict: Verdict, kept: Mask, looked_at: Mask) -> None:
        self._drop(kept, verdict.dropped, verdict.name)
        for column, told in verdict.told.items():
            place = (verdict.name, column)
            self.told[place] = self.told.get(place, False) or bool((told & looked_at).any())

    def _drop(self, kept: Mask, dropped: Mask, name: str) -> None:
        """Drop what is still kept and in the mask, and count it."""
        self._count(self.filtered, name, int((kept & dropped).sum()))
        kept &= ~dropped

    @staticmethod
    def _count(counts: Counter[str], name: str, number: int) -> None:
        if number:
            counts[name] += number
