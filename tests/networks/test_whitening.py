"""Whitening against NumPy, and its two directions against each other."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.whitening import FLOOR, Whitening, fold, unfold, zca


def uneven(count: int = 4000, dim: int = 6) -> np.ndarray:
    """Vectors with variances from 100 to 0.0001 along turned axes, and a mean."""
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    return rng.normal(size=(count, dim)) * np.logspace(1, -2, dim) @ turned + 3.0


def statistics(vectors: np.ndarray) -> tuple[Tensor, Tensor]:
    covariance = np.cov(vectors.T, bias=True)
    return torch.from_numpy(vectors.mean(0)), zca(torch.from_numpy(covariance))


def test_white_vectors_vary_alike_but_for_the_floor():
    vectors = uneven()
    white = Whitening(*statistics(vectors))(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-12)
    variances = np.linalg.eigvalsh(np.cov(vectors.T, bias=True))
    expected = variances / (variances + FLOOR * variances.mean())
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(white.T, bias=True)), expected, rtol=1e-6)


def test_it_turns_nothing():
    _, matrix = statistics(uneven())
    assert (matrix - torch.diag(matrix.diagonal())).abs().max() > 0.1
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0


def test_directions_that_never_vary_are_taken():
    matrix = zca(torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)))
    expected = torch.diag(torch.tensor([4.05, 1.05, 0.05], dtype=torch.float64) ** -0.5)
    torch.testing.assert_close(matrix, expected)


@pytest.mark.parametrize("value", [0.0, float("inf")])
def test_embeddings_that_do_not_vary_are_told(value: float):
    with pytest.raises(InputError, match="do not vary"):
        zca(torch.full((2, 2), 0.0, dtype=torch.float64).fill_diagonal_(value))


def test_it_is_multiplied_in_full_precision_under_autocast():
    vectors = uneven()
    mean, matrix = statistics(vectors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        white = Whitening(mean.float(), matrix.float())(torch.from_numpy(vectors).float())
    np.testing.assert_allclose(white.numpy(), (vectors - mean.numpy()) @ matrix.numpy(), atol=1e-4)


def test_folding_and_unfolding_are_inverse():
    vectors = uneven()
    mean, matrix = statistics(vectors)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    plain = fold(weight, bias, mean, matrix)
    x = torch.from_numpy(vectors[:5])
    white = (x - mean) @ matrix
    torch.testing.assert_close(x @ plain[0].T + plain[1], white @ weight.T + bias)
    again = unfold(*plain, mean, matrix)
    torch.testing.assert_close(again[0], weight)
    torch.testing.assert_close(again[1], bias)
