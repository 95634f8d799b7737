import numpy as np
import pytest

from dalle2_train.evaluation.kid import kid


def _sample(rows: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, size=(rows, 12)).astype(np.float32)


def _naive(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a.astype(np.float64), b.astype(np.float64))) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    own_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    own_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return own_x + own_y - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_kid_equals_a_double_loop() -> None:
    x, y = _sample(17, 0, shift=0.5), _sample(23, 1)
    assert kid(x, y).value == pytest.approx(_naive(x, y), rel=1e-9)


def test_kid_agrees_with_scikit_learns_kernel() -> None:
    from sklearn.metrics.pairwise import polynomial_kernel

    x, y = _sample(30, 0, shift=0.3).astype(np.float64), _sample(20, 1).astype(np.float64)
    own = [
        (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))
        for k in (polynomial_kernel(z, degree=3, coef0=1) for z in (x, y))
    ]
    theirs = sum(own) - 2 * polynomial_kernel(x, y, degree=3, coef0=1).mean()
    assert kid(x, y).value == pytest.approx(theirs)


def test_kid_is_unbiased_where_nothing_differs() -> None:
    values = [kid(_sample(30, 2 * s), _sample(30, 2 * s + 1)).value for s in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_the_jackknife_error_is_the_spread_over_samples() -> None:
    found = [kid(_sample(60, 2 * s, shift=0.5), _sample(60, 2 * s + 1)) for s in range(300)]
    assert np.mean([d.error for d in found]) == pytest.approx(np.std([d.value for d in found]), rel=0.15)


def test_the_jackknife_is_the_one_that_leaves_rows_out() -> None:
    x, y = _sample(7, 0, shift=0.5), _sample(9, 1)
    without_x = [_naive(np.delete(x, i, 0), y) for i in range(7)]
    without_y = [_naive(x, np.delete(y, i, 0)) for i in range(9)]
    variance = 6 * np.var(without_x) + 8 * np.var(without_y)
    assert kid(x, y).error == pytest.approx(np.sqrt(variance), rel=1e-6)
