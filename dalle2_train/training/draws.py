"""The random draws of a training step, sample by sample.

Each is keyed by (seed, purpose, step, global index): whole numbers and coin flips are read off the key's hash, noise
comes from a generator that starts at it. A sample thus draws the same on any rank, in any batch and after a restart;
measured, 64 samples cost about a millisecond, most of it the Gaussian numbers themselves.
Legend: B batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.diffusion.objective import shifted


class DiffusionDraws(NamedTuple):
    """What noises a batch."""

    t: Tensor
    """(B,) int64 timesteps, 0 … T - 1."""
    eps: Tensor
    """(B, …) standard Gaussian."""


def diffusion_draws(
    seed: int,
    step: int,
    index: Tensor,
    num_steps: int,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    timestep_shift: float = 1.0,
) -> DiffusionDraws:
    """Timesteps below `num_steps` and noise (B, *shape) for samples `index` (B,), on the device of `index`.

    `timestep_shift`: of `ObjectiveConfig`; 1 draws every timestep equally often.
    """
    t = timesteps(seed, step, index, num_steps, timestep_shift)
    eps = seeding.normal(shape, seed, "eps", step, index, dtype)
    return DiffusionDraws(t.to(index.device), eps.to(index.device))


def timesteps(seed: int, step: int, index: Tensor, num_steps: int, timestep_shift: float) -> Tensor:
    """(B,) int64 below `num_steps`, on the CPU: ⌊`shifted`⌋ of numbers that are uniform over [0, T)."""
    # A whole number and a fraction, so that a shift of 1 gives the whole number.
    t = seeding.integers(num_steps, seed, "t", step, index) + seeding.uniform(seed, "t_within", step, index)
    return shifted(t, num_steps, timestep_shift).long().clamp(max=num_steps - 1)


def keep(seed: int, purpose: str, step: int, index: Tensor, dropout: float) -> Tensor:
    """(B,) bool, False for a share `dropout` of the samples; other purposes draw independently."""
    return (seeding.uniform(seed, f"keep_{purpose}", step, index) >= dropout).to(index.device)


def offsets(seed: int, purpose: str, step: int, index: Tensor, num_places: int) -> Tensor:
    """(B, 2) int64, vertical and horizontal, each uniform over 0 … num_places - 1."""
    axes = [seeding.integers(num_places, seed, f"{purpose}_{axis}", step, index) for axis in ("top", "left")]
    return torch.stack(axes, dim=1).to(index.device)
