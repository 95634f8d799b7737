"""Texts as 64-bit digests, and which of them came before: 8 bytes a sample, however long its key or hash is.

N texts. Of n samples some two that differ share a digest with a probability of at most n² / 2⁶⁵: 1 in 200 for
400 million.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Digests = NDArray[np.uint64]


def digests(texts: Sequence[str]) -> Digests:
    """(N,) a digest a text, the same on every machine."""
    joined = b"".join(
        blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return np.frombuffer(joined, dtype="<u8").astype(np.uint64)


def among(values: Digests, known: Digests) -> NDArray[np.bool_]:
    """(N,) which of `values` are in the sorted `known`."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values


class Seen:
    """The digests that came before, in sorted runs of which each is at least twice as long as the next.

    So that adding a shard costs a merge now and then instead of a sort of everything; while two runs are merged
    they are held twice.
    """

    def __init__(self) -> None:
        self._runs: list[Digests] = []

    def first(self, values: Digests) -> NDArray[np.bool_]:
        """(N,) which of `values` come here for the first time; all of them are seen from now on."""
        distinct, places = np.unique(values, return_index=True)
        new = np.ones(len(distinct), dtype=bool)
        for run in self._runs:
            new &= ~among(distinct, run)
        found = np.zeros(len(values), dtype=bool)
        found[places[new]] = True
        self._add(distinct[new])
        return found

    def _add(self, run: Digests) -> None:
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort()
        if len(run):
            self._runs.append(run)
