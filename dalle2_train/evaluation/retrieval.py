"""R@k: how often a picture made from a caption finds the caption's real picture in a gallery.

Legend: Q queries, G gallery pictures, F features.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rate(NamedTuple):
    """A share of queries and its standard error."""

    value: float
    error: float


def similarities(queries: NDArray[np.floating], gallery: NDArray[np.floating]) -> NDArray[np.float64]:
    """(Q, F), (G, F) → cosines (Q, G), both sides centred by the gallery's mean.

    Features after a ReLU all point the same way; without centring their cosines hardly differ.
    """
    assert np.isfinite(queries).all() and np.isfinite(gallery).all(), "features must be finite"
    centre = gallery.astype(np.float64).mean(0)
    return _unit(queries.astype(np.float64) - centre) @ _unit(gallery.astype(np.float64) - centre).T


def hits(similarity: NDArray[np.floating], right: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """(Q, G) and the right picture's place (Q,) → chance that it is among the first k (Q,).

    Pictures that are as near as the right one share the places between them in random order: a model that makes the
    same picture for every caption, or features that are all equal, score chance and no more.
    """
    own = np.take_along_axis(similarity, right[:, None], 1)  # (Q, 1)
    # Equal pictures differ by the rounding of a matrix product.
    tied = np.abs(similarity - own) <= 1e-9
    nearer = ((similarity > own) & ~tied).sum(1)
    return np.clip((k - nearer) / tied.sum(1), 0.0, 1.0)


def recall_at(similarity: NDArray[np.floating], right: NDArray[np.integer], k: int) -> Rate:
    """R@k and its binomial standard error over the queries."""
    return binomial(float(hits(similarity, right, k).sum()), len(right))


def binomial(successes: float, trials: int) -> Rate:
    """A rate with its standard error. The error is Agresti & Coull's (1998, two successes and two failures added):
    the plain one would be 0 at rates 0 and 1 and call every difference there real."""
    adjusted = (successes + 2) / (trials + 4)
    return Rate(successes / trials, math.sqrt(adjusted * (1 - adjusted) / (trials + 4)))


def chance(gallery_size: int, num_queries: int, k: int) -> Rate:
    """What guessing scores: k/G, with the standard error that guessing shows over the queries."""
    rate = min(1.0, k / gallery_size)
    return Rate(rate, math.sqrt(rate * (1 - rate) / num_queries))


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length 1; a row of zeros stays, equally far from everything."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
