"""How a number is distributed: what it is at least, at most and in between, and a histogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUM_BINS = 40
LONG_TAIL = 20.0
"""Above this ratio of the greatest value to the least, bins are of equal ratios."""


@dataclass(frozen=True)
class Distribution:
    """How a number is distributed; the last of the bins includes its upper edge."""

    name: str
    unit: str
    told: int
    untold: int
    min: float
    median: float
    mean: float
    max: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def distribution(
    name: str,
    unit: str,
    values: NDArray[Any],
    untold: int,
    *,
    whole: bool,
    bounds: tuple[float, float] | None = None,
) -> Distribution:
    """Of `values` (N,), in √N bins and at most 40: equally wide ones, or equal ratios where the tail is long."""
    if not len(values):
        return Distribution(name, unit, 0, untold, *([float("nan")] * 4), edges=(), counts=())
    num_bins = min(_NUM_BINS, math.isqrt(len(values)))
    edges = _edges(float(values.min()), float(values.max()), num_bins, whole, bounds)
    # Rounded to float32, the greatest value may lie above the last edge by a hair.
    counts, _ = np.histogram(np.clip(values.astype(np.float64), edges[0], edges[-1]), edges)
    return Distribution(
        name,
        unit,
        len(values),
        untold,
        float(values.min()),
        float(np.median(values)),
        float(values.mean(dtype=np.float64)),
        float(values.max()),
        tuple(edges.tolist()),
        tuple(counts.tolist()),
    )


def _edges(
    least: float, most: float, num_bins: int, whole: bool, bounds: tuple[float, float] | None
) -> NDArray[np.float64]:
    if bounds is not None:
        least, most = min(least, bounds[0]), max(most, bounds[1])
    if whole:
        most += 1  # a bin of whole numbers ends before the next one
    elif least == most:
        least, most = least - 0.5, most + 0.5
    is_long = least > 0 and most / least > LONG_TAIL
    edges = (np.geomspace if is_long else np.linspace)(least, most, num_bins + 1)
    return np.unique(np.round(edges)) if whole else edges
