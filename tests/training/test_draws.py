"""Draws depend on the sample alone and have the distributions they claim."""

import numpy as np
import pytest
import torch
from scipy import stats

from dalle2_train import seeding
from dalle2_train.training.draws import diffusion_draws, keep, offsets, timesteps

INDEX = torch.arange(40, 56)


def draw(index, *, seed=1, step=3):
    return (
        *diffusion_draws(seed, step, index, 1000, (2, 4, 4), timestep_shift=5.0),
        keep(seed, "text", step, index, 0.5),
        offsets(seed, "crop", step, index, 9),
    )


@pytest.mark.parametrize("part", [slice(0, 8), slice(5, 6), slice(1, None, 2), [9, 2, 2, 15]])
def test_a_sample_draws_the_same_in_any_batch(part):
    for whole, some in zip(draw(INDEX), draw(INDEX[part]), strict=True):
        assert torch.equal(whole[part], some)


@pytest.mark.parametrize("other", [{"seed": 2}, {"step": 4}])
def test_seed_and_step_matter(other):
    for one, two in zip(draw(INDEX), draw(INDEX, **other), strict=True):
        assert not torch.equal(one, two)


def test_distributions():
    index = torch.arange(20_000)
    draws = diffusion_draws(0, 0, index[:4000], 100, (4,))
    assert stats.chisquare(torch.bincount(draws.t, minlength=100).numpy()).pvalue > 1e-4
    assert stats.kstest(draws.eps.flatten().numpy(), "norm").pvalue > 1e-4
    corners = offsets(0, "crop", 0, index, 5)
    assert (
        stats.chisquare(torch.bincount(corners[:, 0] * 5 + corners[:, 1], minlength=25).numpy()).pvalue > 1e-4
    )
    for dropout in (0.1, 0.3):
        kept = int(keep(0, "text", 0, index, dropout).sum())
        assert stats.binomtest(kept, len(index), 1 - dropout).pvalue > 1e-4


@pytest.mark.parametrize("shift", [0.5, 3.0, 20.0])
def test_shifted_timesteps_have_the_distribution_of_their_formula(shift):
    """P(t < n) is that of u below the value which the formula maps to n / T; every timestep is drawn."""
    t = timesteps(0, 0, torch.arange(40_000), 100, shift)
    x = np.arange(101) / 100
    below = x / (shift - (shift - 1) * x)  # the formula, solved for u
    counts = np.bincount(t.numpy(), minlength=100)
    assert stats.chisquare(counts, 40_000 * np.diff(below)).pvalue > 1e-4


def test_a_shift_of_1_is_the_uniform_draw():
    t = timesteps(1, 3, INDEX, 1000, 1.0)
    assert torch.equal(t, seeding.integers(1000, 1, "t", 3, INDEX))


@pytest.mark.parametrize("shift", [1e-9, 1e9])
def test_no_shift_leaves_the_schedule(shift):
    t = timesteps(0, 0, torch.arange(1000), 10, shift)
    assert t.min() >= 0 and t.max() <= 9


def test_purposes_are_independent():
    index = torch.arange(20_000)
    text, image = keep(0, "text", 0, index, 0.5), keep(0, "image_embed", 0, index, 0.5)
    both = int((text & image).sum())
    assert stats.binomtest(both, len(index), 0.25).pvalue > 1e-4


def test_never_and_always():
    assert keep(0, "text", 0, INDEX, 0.0).all()
    assert not keep(0, "text", 0, INDEX, 1.0).any()


def test_noise_of_the_asked_precision():
    assert diffusion_draws(0, 0, INDEX, 10, (3,), torch.float64).eps.dtype == torch.float64
