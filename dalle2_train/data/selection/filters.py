"""Which samples are trained on, by what their index tells of them, before anything is read or decoded.

N samples of a shard.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from dalle2_train.data.selection.bounds import BOUNDS, Mask, is_told
from dalle2_train.data.selection.digests import Seen, digests
from dalle2_train.data.selection.opt_out import OptOutList, read_list
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class FilterConfig:
    """Bounds on what the records tell; null: no bound. What a filter drops is counted under its name.

    A sample that several drop counts for the first of them, in the order in which they stand here.
    """

    min_width: int | None = None
    """Pixels of the original picture."""
    min_height: int | None = None
    max_aspect: float | None = None
    """Longer side by shorter side."""
    min_caption_length: int | None = None
    """Characters."""
    max_caption_length: int | None = None
    min_similarity: float | None = None
    """CLIP's cosine of picture and caption."""
    min_aesthetic: float | None = None
    """LAION's score, 1 to 10."""
    max_punsafe: float | None = None
    """Probability that it is not safe, as LAION tells it."""
    max_nsfw_score: float | None = None
    """Probability that it is pornographic, by the model of `shards score`."""
    max_pwatermark: float | None = None
    """Probability."""
    nsfw: tuple[str, ...] = ()
    """LAION's words to keep, of UNLIKELY, UNSURE and NSFW, in upper or lower case; empty: all."""
    languages: tuple[str, ...] = ()
    """Those to keep, as the records name them; empty: all."""
    opt_out: str | None = None
    """URI of a list of addresses, domains (with all below them) and hashes that are left out; see `opt_out.py`."""
    duplicates: Literal["keep", "key", "hash"] = "keep"
    """Of the samples with one key, or one hash, that nothing else drops, the first in the order of the shards stays.
    Takes 8 bytes of memory a sample."""
    keep_untold: bool = False
    """Whether a sample stays whose record does not tell what a filter asks for."""

    def __post_init__(self) -> None:
        for name in ("min_width", "min_height", "min_caption_length", "max_caption_length"):
            self._check(name, 0, math.inf)
        self._check("max_aspect", 1, math.inf)
        for name in ("min_similarity", "min_aesthetic"):
            self._check(name, -math.inf, math.inf)
        for name in ("max_punsafe", "max_nsfw_score", "max_pwatermark"):
            self._check(name, 0, 1)
        least, most = self.min_caption_length, self.max_caption_length
        if least is not None and most is not None and least > most:
            raise InputError(
                f"data.filters.min_caption_length {least} is over max_caption_length {most}; no caption is both"
            )

    def _check(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if value is not None and not (least <= value <= most and math.isfinite(value)):
            within = f"between {least} and {most}" if math.isfinite(most) else f"{least} or more"
            raise InputError(f"data.filters.{name} is {value}; it must be {within}, or null")


class Verdict(NamedTuple):
    """What one filter says of a shard's samples, whatever other filters say."""

    name: str
    """The filter's, and of what it drops."""
    dropped: Mask
    """(N,)"""
    told: dict[str, Mask]
    """Column that it asks for → (N,) which records tell it."""


class Filters:
    """A config's filters, ready for one shard after another in the set's order. A bad opt-out list: InputError."""

    def __init__(self, config: FilterConfig) -> None:
        self.config = config
        self.opt_out: OptOutList | None = read_list(config.opt_out) if config.opt_out is not None else None
        self._seen = Seen()

    def verdicts(self, index: ShardIndex) -> Iterator[Verdict]:
        """Of every filter that is set and looks at a sample alone, in the order of precedence."""
        for bound in BOUNDS:
            limit = getattr(self.config, bound.name)
            if limit is not None and limit != ():
                told = {column: is_told(index, column) for column in bound.columns}
                yield self._verdict(bound.name, told, ~bound.keeps(index, limit) & _all(told))
        if self.opt_out is not None:
            told = {column: is_told(index, column) for column in self.opt_out.asks_for}
            yield self._verdict("opt_out", told, self.opt_out.names(index))

    def duplicates(self, index: ShardIndex, kept: Mask) -> Iterator[Verdict]:
        """The last filter, if it is set: which of the `kept` samples (N,) came before, here or in an earlier shard."""
        column = self.config.duplicates
        if column != "keep":
            told = {column: is_told(index, column)}
            asked = kept & told[column]
            again = np.zeros(len(index), dtype=bool)
            texts = index.table.column(column).filter(asked).to_pylist()
            again[asked] = ~self._seen.first(digests(texts))
            yield self._verdict("duplicates", told, again)

    def _verdict(self, name: str, told: dict[str, Mask], refused: Mask) -> Verdict:
        return Verdict(name, refused if self.config.keep_untold else refused | ~_all(told), told)


def _all(told: dict[str, Mask]) -> Mask:
    return np.logical_and.reduce(list(told.values()))
