"""Whitening against NumPy, and its two directions against each other."""

import numpy as np
import torch

from dalle2_train.networks.whitening import FLOOR, Whitening, fold, unfold, zca


def uneven(count: int = 4000, dim: int = 6) -> np.ndarray:
    """Vectors with variances from 100 to 0.0001 along turned axes, and a mean."""
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return rng.normal(size=(count, dim)) * np.logspace(1, -2, dim) @ turned + 3.0


def test_white_vectors_vary_alike_but_for_the_floor():
    vectors = uneven()
    covariance = np.cov(vectors.T, bias=True)
    whitening = Whitening(torch.from_numpy(vectors.mean(0)), torch.from_numpy(zca(covariance)))
    white = whitening(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)
    variances = np.linalg.eigvalsh(covariance)
    expected = variances / (variances + FLOOR * variances.mean())
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(white.T, bias=True)), expected, rtol=1e-6)


def test_it_is_symmetric_and_takes_directions_that_never_vary():
    matrix = zca(np.diag([4.0, 1.0, 0.0]))
    np.testing.assert_allclose(matrix, np.diag(np.array([4.05, 1.05, 0.05]) ** -0.5), rtol=1e-12)


def test_small_directions_survive_autocast():
    vectors = uneven()
    mean, matrix = vectors.mean(0), zca(np.cov(vectors.T, bias=True))
    whitening = Whitening(torch.from_numpy(mean).float(), torch.from_numpy(matrix).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        white = whitening(torch.from_numpy(vectors).float())
    np.testing.assert_allclose(white.numpy(), (vectors - mean) @ matrix, atol=1e-4)


def test_folding_and_unfolding_are_inverse():
    vectors = uneven()
    mean = torch.from_numpy(vectors.mean(0))
    matrix = torch.from_numpy(zca(np.cov(vectors.T, bias=True)))
    weight, bias = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    plain = fold(weight, bias, mean, matrix)
    x = torch.from_numpy(vectors[:5])
    white = (x - mean) @ matrix
    torch.testing.assert_close(x @ plain[0].T + plain[1], white @ weight.T + bias)
    again = unfold(*plain, mean, matrix)
    torch.testing.assert_close(again[0], weight)
    torch.testing.assert_close(again[1], bias)
