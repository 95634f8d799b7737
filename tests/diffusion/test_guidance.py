"""Guidance of the mean, and of the mean alone where the variance is learned."""

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
