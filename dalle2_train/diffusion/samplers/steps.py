"""Which timesteps a sampler visits, and what a step knows.

B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, …), t (B,) int64) → prediction (B, C, …), or (B, 2C, …) with the variance behind."""


class Step(NamedTuple):
    """One step from timestep `t` down to the one before it in the chosen sequence."""

    t: int
    a: Tensor  # (), ᾱ at t
    a_before: Tensor  # (), ᾱ at the timestep the step arrives at; 1 at the end
    beta: Tensor  # (), the variance that the forward process adds between the two

    @property
    def is_last(self) -> bool:
        """Does it arrive at x_0?"""
        return bool(self.a_before == 1)


class Seen(NamedTuple):
    """A step, where it starts, and what the network saw there."""

    step: Step
    x_t: Tensor  # (B, C, …)
    x_0: Tensor  # (B, C, …), predicted and thresholded
    fraction: Tensor | None  # (B, C, …), where a learned variance lies between its bounds


Move = Callable[[Seen, Seen | None], tuple[Tensor, Tensor | None]]
"""A sampler: (this step, the one before it or None) → mean (B, C, …) and standard deviation after this step; None: no
noise is added."""


def timesteps(num_train_steps: int, num_steps: int) -> list[int]:
    """`num_steps` of the timesteps, evenly from T - 1 down to 0, as UnCLIPScheduler rounds them."""
    if num_steps > num_train_steps:
        raise InputError(f"sampler num_steps {num_steps} must not exceed the schedule's {num_train_steps}")
    if num_steps == 1:
        return [num_train_steps - 1]
    stride = (num_train_steps - 1) / (num_steps - 1)
    return [round(i * stride) for i in reversed(range(num_steps))]


def list_steps(schedule: NoiseSchedule, num_steps: int) -> list[Step]:
    """The steps, first to last."""
    betas, alphas_cumprod = schedule
    one = torch.ones((), dtype=betas.dtype, device=betas.device)
    chosen = timesteps(schedule.num_steps, num_steps)
    steps = []
    for t, before in zip(chosen, [*chosen[1:], -1], strict=True):
        a, a_before = alphas_cumprod[t], alphas_cumprod[before] if before >= 0 else one
        beta = betas[t] if before == t - 1 else 1 - a / a_before
        steps.append(Step(t, a, a_before, beta))
    return steps
