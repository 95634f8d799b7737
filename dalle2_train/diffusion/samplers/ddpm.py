"""Ancestral sampling between strided timesteps (Ho et al. 2020, Nichol & Dhariwal 2021).

B batch, C channels; x any shape (B, C, …).
"""

from typing import NamedTuple

from torch import Tensor

from dalle2_train.diffusion.samplers.config import VarianceName
from dalle2_train.diffusion.samplers.steps import Seen
from dalle2_train.diffusion.variance import interpolate_log_variance

MIN_VARIANCE = 1e-20


class StridedPosterior(NamedTuple):
    """q(x_before | x_t, x_0) between strided timesteps: eq. 7 of Ho et al. 2020."""

    mean: Tensor  # (B, C, …)
    variance: Tensor  # ()
    of_x_0: Tensor  # (), what x_0 is multiplied by in the mean


def strided_posterior(now: Seen) -> StridedPosterior:
    """That of the step `now`, with the x_0 predicted there."""
    _, a, a_before, beta = now.step
    of_x_0 = a_before.sqrt() * beta / (1 - a)
    of_x_t = (1 - beta).sqrt() * (1 - a_before) / (1 - a)
    mean = of_x_0 * now.x_0 + of_x_t * now.x_t
    return StridedPosterior(mean, (1 - a_before) / (1 - a) * beta, of_x_0)


def ddpm_step(now: Seen, _earlier: Seen | None, variance: VarianceName) -> tuple[Tensor, Tensor]:
    """Mean (B, C, …) and standard deviation after the step."""
    posterior, beta = strided_posterior(now), now.step.beta
    log_variance = posterior.variance.clamp(min=MIN_VARIANCE).log()
    if variance == "fixed_large":
        log_variance = beta.log()
    elif variance == "learned_range":
        assert now.fraction is not None, (
            "a sampler with learned_range needs a network that predicts its variance"
        )
        log_variance = interpolate_log_variance(now.fraction, log_variance, beta.log())
    return posterior.mean, (0.5 * log_variance).exp()
