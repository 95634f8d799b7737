"""Kernel Inception Distance: the unbiased squared MMD with a cubic kernel (Bińkowski et al. 2018), by any features.

Legend: M and N pictures, F features.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Distance(NamedTuple):
    """A KID and its standard error. Unbiased, so it is around 0, also below, where nothing differs."""

    value: float
    error: float


def kid(x: NDArray[np.floating], y: NDArray[np.floating]) -> Distance:
    """(M, F), (N, F), two rows or more each → KID, kernel (x·y/F + 1)³, and its jackknife standard error.

    The error is Efron & Stein's two-sample jackknife: each picture in turn is left out of its own side. All pairs are
    used, where the paper averages over random subsets, so the value depends on no seed.
    """
    assert min(len(x), len(y)) >= 2, "KID needs two pictures on each side"
    cross = _kernel(x, y)  # (M, N)
    own_x, own_y = _own_rows(x), _own_rows(y)  # (M,), (N,)
    value = _mean_pairs(own_x) + _mean_pairs(own_y) - 2 * cross.mean()
    variance = _jackknife(own_x, cross.mean(1)) + _jackknife(own_y, cross.mean(0))
    return Distance(float(value), math.sqrt(variance))


def _kernel(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float64]:
    return (x.astype(np.float64) @ y.astype(np.float64).T / x.shape[1] + 1) ** 3


def _own_rows(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """(M,) the kernel of each row with all other rows, summed."""
    kernel = _kernel(x, x)
    return kernel.sum(1) - kernel.diagonal()


def _mean_pairs(rows: NDArray[np.float64]) -> float:
    return float(rows.sum() / (len(rows) * (len(rows) - 1)))


def _jackknife(rows: NDArray[np.float64], cross: NDArray[np.float64]) -> float:
    """The variance of KID due to one side. rows: (M,) own sums; cross: (M,) mean kernel with the other side."""
    m = len(rows)
    if m < 3:
        return 0.0  # leaving one out leaves no pair
    without = (rows.sum() - 2 * rows) / ((m - 1) * (m - 2)) - 2 * (cross.sum() - cross) / (m - 1)  # (M,)
    return float((m - 1) / m * ((without - without.mean()) ** 2).sum())
