"""The way between two latents, against rotations in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import geometric_slerp

from dalle2_train.errors import InputError
from dalle2_train.generation.manipulations.slerp import slerp


def vectors(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_directions_are_scipys_and_norms_lie_on_a_line(fraction: float) -> None:
    start, end = 3 * vectors(4, 10), vectors(4, 10, seed=1)
    ours = slerp(start, end, fraction)
    for a, b, found in zip(start.numpy(), end.numpy(), ours.numpy(), strict=True):
        norms = np.linalg.norm(a), np.linalg.norm(b)
        theirs = geometric_slerp(a / norms[0], b / norms[1], fraction)
        norm = (1 - fraction) * norms[0] + fraction * norms[1]
        np.testing.assert_allclose(found, norm * theirs, rtol=0, atol=1e-12)


def test_a_quarter_turn() -> None:
    for fraction in (0.0, 1 / 3, 0.5, 1.0):
        found = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), fraction)
        angle = fraction * math.pi / 2
        torch.testing.assert_close(found, 2 * torch.tensor([[math.cos(angle), math.sin(angle)]]))


def test_each_latent_has_its_own_fraction_and_any_shape() -> None:
    start, end, fractions = vectors(3, 2, 4, 4), vectors(3, 2, 4, 4, seed=1), torch.tensor([0.1, 0.5, 0.7])
    together = slerp(start, end, fractions)
    assert together.shape == start.shape
    for i, fraction in enumerate(fractions.tolist()):
        flat = slerp(start[i : i + 1].flatten(1), end[i : i + 1].flatten(1), fraction)
        torch.testing.assert_close(together[i].flatten(), flat[0])


def test_both_ends_are_exact_in_float32() -> None:
    start, end = vectors(2, 3, 8, 8, dtype=torch.float32), vectors(2, 3, 8, 8, seed=1, dtype=torch.float32)
    assert torch.equal(slerp(start, end, 0.0), start) and torch.equal(slerp(start, end, 1.0), end)


def test_on_one_line_only_the_norm_changes() -> None:
    start = vectors(2, 5)
    torch.testing.assert_close(slerp(start, start, 0.3), start)
    torch.testing.assert_close(slerp(start, 3 * start, 0.5), 2 * start)
    # Where arccos of the cosine would see an angle of 0 and lose the difference.
    near = start + 1e-9 * vectors(2, 5, seed=1)
    torch.testing.assert_close(slerp(start, near, 0.5), (start + near) / 2, rtol=0, atol=1e-15)


def test_between_opposites_there_is_no_shortest_way() -> None:
    start = vectors(2, 5)
    with pytest.raises(InputError, match="opposite directions"):
        slerp(start, torch.stack([start[0] + 1, -2 * start[1]]), 0.5)
    almost = -start + 1e-3 * vectors(2, 5, seed=1)
    torch.testing.assert_close(slerp(start, almost, 0.5).norm(dim=1), start.norm(dim=1), rtol=1e-2, atol=0)
