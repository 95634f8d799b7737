"""The forward process q(x_t | x_0) and its posterior q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 4, 6 and 7).

B batch; x any shape (B, …).
"""

from typing import NamedTuple

from torch import Tensor

from dalle2_train.diffusion.schedule import NoiseSchedule, at


def add_noise(schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t (B, …) of `x_0` (B, …) at timesteps `t` (B,), with standard Gaussian `eps` (B, …)."""
    kept, added = signal_and_noise(schedule, t, x_0)
    return kept * x_0 + added * eps


def signal_and_noise(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """√ᾱ_t and √(1 - ᾱ_t), the amplitudes of x_0 and of the noise in x_t, broadcastable to `like` (B, …)."""
    alphas_cumprod = schedule.alphas_cumprod
    return at(alphas_cumprod.sqrt(), t, like), at((1 - alphas_cumprod).sqrt(), t, like)


class Posterior(NamedTuple):
    """A Gaussian over x_{t-1}; the variances broadcast to the mean."""

    mean: Tensor  # (B, …)
    variance: Tensor  # (B, 1, …), zero at t = 0
    log_variance: Tensor  # (B, 1, …), at t = 0 that of t = 1


def posterior_mean_variance(schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Tensor) -> Posterior:
    """q(x_{t-1} | x_t, x_0) at timesteps `t` (B,).

    The logarithm of the variance, minus infinity at t = 0, is replaced there by that of t = 1 as in Improved DDPM.
    """
    betas, alphas_cumprod = schedule
    before = alphas_cumprod.roll(1)
    before[0] = 1.0
    variance = betas * (1 - before) / (1 - alphas_cumprod)  # (T,)
    clipped = variance.clone()
    clipped[0] = variance[min(1, len(variance) - 1)]
    of_x_0 = before.sqrt() * betas / (1 - alphas_cumprod)
    of_x_t = (1 - betas).sqrt() * (1 - before) / (1 - alphas_cumprod)
    mean = at(of_x_0, t, x_t) * x_0 + at(of_x_t, t, x_t) * x_t
    return Posterior(mean, at(variance, t, x_t), at(clipped.log(), t, x_t))
