"""Codes of embeddings: components as scikit-learn's, levels as SciPy's, and what a round trip loses."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.decomposition import PCA
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.embed_codes import EmbedCodes, gaussian_levels, principal_components

EMBED_DIM, NUM_VECTORS = 12, 4000


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    """Correlated Gaussians around a mean far from zero, as CLIP's embeddings are."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(EMBED_DIM, EMBED_DIM, generator=generator, dtype=torch.float64)
    scales = torch.logspace(0, -3, EMBED_DIM, dtype=torch.float64)
    draws = torch.randn(NUM_VECTORS, EMBED_DIM, generator=generator, dtype=torch.float64)
    return 5.0 + draws * scales @ torch.linalg.qr(mixing).Q


def fitted(vectors: Tensor, num_dims: int, num_buckets: int) -> EmbedCodes:
    codes = EmbedCodes(EMBED_DIM, num_dims, num_buckets).double()
    codes.fit(vectors.mean(0), torch.cov(vectors.T, correction=0))
    return codes


def test_components_are_those_of_scikit_learn(vectors: Tensor) -> None:
    variances, directions = principal_components(torch.cov(vectors.T, correction=1))
    theirs = PCA(svd_solver="full").fit(vectors.numpy())
    np.testing.assert_allclose(variances, theirs.explained_variance_, rtol=1e-9)
    along = np.sign((theirs.components_ * directions.numpy()).sum(1, keepdims=True))
    np.testing.assert_allclose(directions, along * theirs.components_, atol=1e-9)
    largest = directions.abs().argmax(dim=1)
    assert (directions[torch.arange(EMBED_DIM), largest] > 0).all()


def test_levels_are_quantiles_of_the_wider_gaussian() -> None:
    expected = norm(scale=3**0.5).ppf((np.arange(64) + 0.5) / 64)
    np.testing.assert_allclose(gaussian_levels(64), expected, atol=1e-12)


@pytest.mark.parametrize("num_buckets", [32, 128, 1024])
def test_levels_lose_what_panter_and_dite_say(num_buckets: int) -> None:
    """The mean square of the rounding, integrated over a standard Gaussian."""
    levels = gaussian_levels(num_buckets).numpy()
    x = np.linspace(-9, 9, 2_000_001)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, x)]
    lost = ((x - nearest) ** 2 * norm.pdf(x)).sum() * (x[1] - x[0])
    assert lost == pytest.approx(3**0.5 * np.pi / 2 / num_buckets**2, rel=0.05)
    # Nothing else that needs the variance alone does better: neither even steps to four deviations nor equal shares.
    for others in (np.linspace(-4, 4, num_buckets), norm.ppf((np.arange(num_buckets) + 0.5) / num_buckets)):
        rounded = others[np.searchsorted((others[1:] + others[:-1]) / 2, x)]
        assert ((x - rounded) ** 2 * norm.pdf(x)).sum() * (x[1] - x[0]) > lost


def test_a_code_is_the_nearest_level(vectors: Tensor) -> None:
    codes = fitted(vectors, 7, 16)
    components = (vectors - vectors.mean(0)) @ codes.directions.T / codes.std  # (N, K)
    nearest = (components[..., None] - codes.levels).abs().argmin(dim=-1)
    assert torch.equal(codes.encode(vectors), nearest)
    assert nearest.min() == 0 and nearest.max() == 15
    torch.testing.assert_close(components.std(dim=0, correction=0), torch.ones(7, dtype=torch.float64))


def test_a_round_trip_loses_what_is_left_out_and_half_a_step_at_most(vectors: Tensor) -> None:
    codes = fitted(vectors, 8, 64)
    returned = codes.decode(codes.encode(vectors))
    error = vectors - returned
    along = (error @ codes.directions.T).abs() / codes.std  # (N, K)
    inside = ((vectors - codes.mean) @ codes.directions.T / codes.std).abs() <= codes.levels[-1]
    assert inside.double().mean() > 0.999
    assert along[inside].max() <= codes.levels.diff().max() / 2 + 1e-9
    # Of the variance: what PCA leaves out, and the rounding.
    lost = error.square().sum() / (vectors - vectors.mean(0)).square().sum()
    left_out = 1 - PCA(8, svd_solver="full").fit(vectors.numpy()).explained_variance_ratio_.sum()
    assert float(codes.left_out) == pytest.approx(left_out, rel=1e-6)
    rounding = 3**0.5 * torch.pi / 2 / 64**2 * (1 - left_out)
    assert float(lost) == pytest.approx(left_out + rounding, rel=0.05)


def test_codes_of_codes_are_the_same(vectors: Tensor) -> None:
    codes = fitted(vectors, 5, 32).float()
    found = codes.encode(vectors.float())
    assert torch.equal(codes.encode(codes.decode(found)), found)


def test_too_few_directions_are_told(vectors: Tensor) -> None:
    flat = vectors.clone()
    flat[:, 3:] = 5.0
    with pytest.raises(InputError, match="vary along 3 directions, num_dims is 4"):
        fitted(flat, 4, 8)
    with pytest.raises(InputError, match="vary along 0 directions"):
        fitted(torch.ones(10, EMBED_DIM, dtype=torch.float64), 1, 8)
