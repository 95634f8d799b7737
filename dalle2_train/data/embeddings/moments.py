"""Mean and covariance of vectors that come shard by shard, in float64.

N vectors, E embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Moments(NamedTuple):
    """Of N vectors; those of two sets merge into those of both."""

    count: int
    """N."""
    mean: NDArray[np.float64]
    """(E,)"""
    products: NDArray[np.float64]
    """(E, E) sum of the outer products of the deviations from the mean."""
    norms: float
    """Sum of the L2 norms."""

    def merged(self, other: Moments) -> Moments:
        """Of both sets together (Chan et al. 1979)."""
        if not self.count or not other.count:
            return self if self.count else other
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.products + other.products + np.outer(delta, delta) * (self.count * other.count / count),
            self.norms + other.norms,
        )

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(E, E), divided by N."""
        return self.products / self.count


NOTHING = Moments(0, np.zeros(0), np.zeros((0, 0)), 0.0)
"""Of no vectors."""


def moments_of(vectors: NDArray[np.floating]) -> Moments:
    """vectors: (N, E)."""
    wide = vectors.astype(np.float64)
    mean = wide.mean(0) if len(wide) else np.zeros(wide.shape[1])
    deviations = wide - mean
    norms = float(np.linalg.norm(wide, axis=1).sum())
    return Moments(len(wide), mean, deviations.T @ deviations, norms)
