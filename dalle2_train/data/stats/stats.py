"""What a set is like: how its numbers and words are distributed, and where filters would send its samples.

Everything is read from the index; no picture is. Holds 44 bytes of memory a sample, and copies of a number at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.selection.bounds import aspect, is_told, numbers
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.selection.selection import Ledger, sort_out
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.data.stats.distribution import Distribution, distribution

_WORDS = ("split", "language", "format", "nsfw")
# Name → (unit, whole numbers?, the range where it is known beforehand)
_NUMBERS: dict[str, tuple[str, bool, tuple[float, float] | None]] = {
    "width": ("pixels", True, None),
    "height": ("pixels", True, None),
    "aspect": ("longer by shorter side", False, None),
    "caption_length": ("characters", True, None),
    "similarity": ("cosine of picture and caption", False, None),
    "aesthetic": ("score", False, None),
    "punsafe": ("probability", False, (0.0, 1.0)),
    "nsfw_score": ("probability", False, (0.0, 1.0)),
    "pwatermark": ("probability", False, (0.0, 1.0)),
    "bytes_per_sample": ("bytes", True, None),
}


@dataclass(frozen=True)
class StatsConfig:
    """Which samples are looked at, and which filters are tried on them."""

    split: str | None = None
    """Of the ledger alone; null: all."""
    filters: FilterConfig = FilterConfig()


@dataclass(frozen=True)
class Words:
    """How often each word stands in a column, the most frequent first."""

    name: str
    told: int
    untold: int
    counts: dict[str, int]


@dataclass(frozen=True)
class Stats:
    """What a set is like."""

    uri: str
    num_shards: int
    num_samples: int
    damaged_shards: dict[str, int]
    """What is wrong with a tar, missing among it → shards."""
    numbers: tuple[Distribution, ...]
    words: tuple[Words, ...]
    untold: tuple[str, ...]
    """Columns that no record tells."""
    ledger: Ledger
    """Where the filters that were given would send every sample."""


def stats(uri: str, config: StatsConfig = StatsConfig()) -> Stats:
    """Looks at every sample's row of the index; makes the index where there is none.

    A split that isn't there, or a filter on what no record tells: InputError.
    """
    shards = open_set(uri)
    values: dict[str, list[NDArray[Any]]] = {name: [] for name in _NUMBERS}
    words: dict[str, Counter[str]] = {name: Counter() for name in _WORDS}
    for number in range(len(shards)):
        index = shards.index(number)
        for name in _NUMBERS:
            values[name].append(_values(index, name))
        for name in _WORDS:
            _count_words(words[name], index, name)
    count = shards.manifest.num_samples
    found = [_of_samples(name, values.pop(name), count) for name in _NUMBERS]
    found.append(_of_shards(shards))
    told_words = [
        Words(name, c.total(), count - c.total(), dict(c.most_common())) for name, c in words.items()
    ]
    return Stats(
        uri=storage.absolute(uri),
        num_shards=len(shards),
        num_samples=count,
        damaged_shards=dict(Counter(s.problem for s in shards.manifest.shards if s.problem is not None)),
        numbers=tuple(one for one in found if one.told),
        words=tuple(one for one in told_words if one.told),
        untold=tuple(one.name for one in (*found, *told_words) if not one.told),
        ledger=sort_out(shards, config.split, config.filters).ledger,
    )


def _values(index: ShardIndex, name: str) -> NDArray[Any]:
    """Those that are told."""
    if name == "bytes_per_sample":
        return index.lengths
    if name == "aspect":
        return aspect(index)[is_told(index, "width") & is_told(index, "height")].astype(np.float32)
    kind = np.int32 if _NUMBERS[name][1] else np.float32
    return numbers(index, name)[is_told(index, name)].astype(kind)


def _count_words(counts: Counter[str], index: ShardIndex, name: str) -> None:
    for entry in index.table.column(name).drop_null().value_counts().to_pylist():
        counts[entry["values"]] += entry["counts"]


def _of_samples(name: str, parts: Sequence[NDArray[Any]], count: int) -> Distribution:
    unit, whole, bounds = _NUMBERS[name]
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    return distribution(name, unit, values, count - len(values), whole=whole, bounds=bounds)


def _of_shards(shards: ShardSet) -> Distribution:
    counts = np.array([shard.num_samples for shard in shards.manifest.shards], dtype=np.int64)
    return distribution("samples_per_shard", "samples", counts, 0, whole=True)
