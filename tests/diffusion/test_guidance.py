"""Guidance of the mean, and of the mean alone where the variance is learned."""

import numpy as np
import torch

from dalle2_train.diffusion.guidance import guide


def test_extrapolates_from_uncond_through_cond() -> None:
    cond, uncond = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    assert guide(cond, uncond, 4.0).tolist() == [[9.0, 1.0]]
    assert torch.equal(guide(cond, uncond, 1.0), cond)
    assert torch.equal(guide(cond, uncond, 0.0), uncond)


def test_a_learned_variance_is_the_conditional_one(generator: torch.Generator) -> None:
    cond, uncond = (torch.randn(2, 6, 4, 4, generator=generator) for _ in range(2))
    guided = guide(cond, uncond, 3.0, num_guided=3)
    assert torch.equal(guided[:, :3], guide(cond[:, :3], uncond[:, :3], 3.0))
    assert torch.equal(guided[:, 3:], cond[:, 3:])


def test_rescaling_is_lins_and_leaves_a_learned_variance(generator: torch.Generator) -> None:
    cond, uncond = (torch.randn(2, 6, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    cond[1] *= 5
    ours = guide(cond, uncond, 3.0, num_guided=3, rescale=0.7)
    for i in range(2):
        mean = cond[i, :3].numpy()
        guided = uncond[i, :3].numpy() + 3 * (mean - uncond[i, :3].numpy())
        expected = 0.7 * guided * mean.std() / guided.std() + 0.3 * guided
        np.testing.assert_allclose(ours[i, :3], expected, rtol=1e-12)
    assert torch.equal(ours[:, 3:], cond[:, 3:])
    full = guide(cond, uncond, 9.0, rescale=1.0)
    np.testing.assert_allclose(full.flatten(1).std(dim=1), cond.flatten(1).std(dim=1), rtol=1e-12)


def test_rescaling_of_a_network_that_has_learned_nothing() -> None:
    nothing = torch.zeros(2, 3, 4, 4)
    assert torch.equal(guide(nothing, nothing, 4.0, rescale=1.0), nothing)


def test_rescaling_what_is_the_same_everywhere_is_finite_in_half_precision():
    same = torch.ones(1, 3, 2, 2, dtype=torch.float16)
    rescaled_ = guide(same, same, 2.0, rescale=0.7)
    assert rescaled_.dtype == torch.float16 and rescaled_.isfinite().all()
