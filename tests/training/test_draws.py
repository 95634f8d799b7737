"""Draws depend on the sample alone and have the distributions they claim."""

import pytest
import torch
from scipy import stats

from dalle2_train.training.draws import diffusion_draws, keep, offsets

INDEX = torch.arange(40, 56)


def draw(index, *, seed=1, step=3):
    return (
        *diffusion_draws(seed, step, index, 1000, (2, 4, 4)),
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
