"""In-painting: a sample of which a part is known beforehand (RePaint, Lugmayr et al. 2022).

B batch, C channels, H W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import check_predictable
from dalle2_train.diffusion.samplers.config import SamplerConfig
from dalle2_train.diffusion.samplers.loop import arrive, mover, see
from dalle2_train.diffusion.samplers.steps import Denoise, Step, list_steps
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError


class Known(NamedTuple):
    """The part of x_0 that is known."""

    x_0: Tensor
    """(B, C, H, W); where it is not known its values have no effect."""
    mask: Tensor
    """(B, 1, H, W) bool, True where it is known."""

    def replace(self, x_t: Tensor, a: Tensor, eps: Tensor) -> Tensor:
        """`x_t` (B, C, H, W) at ᾱ = `a`, the known part being x_0's, noised by `eps` (B, C, H, W)."""
        return torch.where(self.mask, a.sqrt() * self.x_0 + (1 - a).sqrt() * eps, x_t)


@dataclass(frozen=True)
class Resampling:
    """How often what is new is drawn again beside what is known, for the two to agree."""

    num_times: int = 1
    """How often each stretch of steps is sampled; 1: once, as in GLIDE. More takes as many times the steps."""
    num_steps: int = 10
    """Steps of a stretch, after which the noise is raised again by as many."""

    def __post_init__(self) -> None:
        for name in ("num_times", "num_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"resampling {name}={getattr(self, name)}: give at least 1")

    def num_calls(self, num_steps: int) -> int:
        """Calls of the network for a sampler of `num_steps`."""
        return self.num_times * num_steps


ONCE = Resampling()


class _Visit(NamedTuple):
    """A step of the way down."""

    step: Step
    raised_from: Tensor | None
    """(), the ᾱ from which the noise is raised before it to that of the step; None: it goes on where it is."""


@torch.no_grad()
def inpaint(
    denoise: Denoise,
    x_T: Tensor,  # noqa: N803
    schedule: NoiseSchedule,
    config: SamplerConfig,
    noise: Callable[[int], Tensor],
    known: Known,
    resampling: Resampling = ONCE,
) -> Tensor:
    """Draw x_0 (B, C, H, W) whose known part is `known`'s, exactly; the other arguments are `sample`'s.

    Before every step the known part is replaced by its own noised x_0: by fresh noise where the sampler draws noise, by
    that of x_T where it draws none. The rest is drawn in sight of it, but what was drawn at a step did not yet see
    what the next would show; `resampling` lets it, by going back. `noise(i)` is asked for i = 0, 1, …
    Errors: InputError as `sample`, and for analytic_dpm.
    """
    check_predictable(config.prediction_type, schedule.zero_terminal_snr)
    if config.name == "analytic_dpm":
        raise InputError("sampler analytic_dpm draws no part of a picture anew, it is a prior's; use ddpm")
    schedule = schedule.computed_in(torch.promote_types(x_T.dtype, torch.float32))
    numbers = count()

    def fresh() -> Tensor:
        return noise(next(numbers))

    def of_known() -> Tensor:
        return fresh() if config.name == "ddpm" or config.eta > 0 else x_T

    steps = list_steps(schedule, config.num_steps)
    move, earlier = mover(config), None
    x_t = known.replace(x_T, steps[0].a, x_T)
    for step, raised_from in _visits(steps, resampling):
        if raised_from is not None:
            x_t = known.replace(_raise_noise(x_t, raised_from, step.a, fresh()), step.a, of_known())
            earlier = None  # what was seen on the way down is not of this x_t
        now = see(denoise, x_t, step, schedule, config)
        x_t = arrive(move, now, earlier, fresh)
        x_t = known.replace(x_t, step.a_before, x_T if step.is_last else of_known())
        earlier = now
    return x_t


def _visits(steps: Sequence[Step], resampling: Resampling) -> Iterator[_Visit]:
    """All steps in order, each stretch of them as often as is asked."""
    for start in range(0, len(steps), resampling.num_steps):
        first, *others = stretch = steps[start : start + resampling.num_steps]
        for time in range(resampling.num_times):
            yield _Visit(first, stretch[-1].a_before if time > 0 else None)
            yield from (_Visit(step, None) for step in others)


def _raise_noise(x: Tensor, a: Tensor, a_above: Tensor, eps: Tensor) -> Tensor:
    """q(x_above | x): from noise of level `a` to more of it, `a_above`."""
    kept = a_above / a
    return kept.sqrt() * x + (1 - kept).sqrt() * eps
