"""In which order samples are trained on: lanes with a cursor each, the same for every number of ranks.

The samples of a split, epoch after epoch, form one endless sequence: an epoch permutes blocks of neighbours (so
that storage is read in runs) after a shift that differs from epoch to epoch. The sequence is cut into chunks of
`block_size`; chunk c belongs to lane c % num_lanes and is shuffled within. So no tail is dropped, every sample
comes once an epoch, and a lane's n-th sample is a function of (seed, lane, n) alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dalle2_train import seeding

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The order of `num_samples` samples over `num_lanes` lanes."""

    num_samples: int
    num_lanes: int
    block_size: int
    seed: int
    shuffle: bool = True

    def chunk(self, lane: int, number: int) -> Ids:
        """The samples that are the lane's `number`-th `block_size`, as ids in [0, num_samples)."""
        chunk = number * self.num_lanes + lane
        places = np.arange(chunk * self.block_size, (chunk + 1) * self.block_size, dtype=np.int64)
        epochs, places = np.divmod(places, self.num_samples)
        ids = np.empty_like(places)
        for epoch in np.unique(epochs):
            now = epochs == epoch
            ids[now] = self._ids(int(epoch), places[now])
        if self.shuffle and self.block_size > 1:
            ids = ids[_permutation(self.block_size, seeding.key(self.seed, "order within chunk", chunk))]
        return ids

    def _ids(self, epoch: int, places: Ids) -> Ids:
        if not self.shuffle:
            return places
        blocks, within = np.divmod(places, self.block_size)
        whole = self.num_samples // self.block_size
        order = _epoch_permutation(whole, self.seed, epoch)
        # The ragged block stays last; the shift makes it another one each epoch.
        blocks = np.where(blocks < whole, order[np.minimum(blocks, whole - 1)] if whole else blocks, blocks)
        shift = seeding.key(self.seed, "order shift", epoch) % self.num_samples
        return (blocks * self.block_size + within + shift) % self.num_samples


@lru_cache(maxsize=8)
def _epoch_permutation(count: int, seed: int, epoch: int) -> Ids:
    return _permutation(count, seeding.key(seed, "order of blocks", epoch))


def _permutation(count: int, key: int) -> Ids:
    """A permutation of range(count); NumPy promises that a bit generator's raw stream never changes."""
    return np.argsort(np.random.PCG64(key).random_raw(count), kind="stable").astype(np.int64)
