"""The learned variance of Improved DDPM (Nichol & Dhariwal 2021): its parametrisation and its variational bound.

B batch; x any shape (B, …).
"""

import math

import torch
from torch import Tensor

from dalle2_train.diffusion.process import posterior_mean_variance
from dalle2_train.diffusion.schedule import NoiseSchedule, at

HALF_BIN = 1 / 255  # half the distance of two 8-bit grey levels on [-1, 1]
MIN_PROBABILITY = 1e-12


def interpolate_log_variance(fraction: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Eq. 15: `fraction`, the network's output, is -1 at the lower log variance and 1 at the upper."""
    weight = (fraction + 1) / 2
    return weight * high + (1 - weight) * low


def vlb_term(
    schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: Tensor, predicted_x_0: Tensor, fraction: Tensor
) -> Tensor:
    """One term of the variational bound, eq. 4 to 7, in bits per dimension: (B,).

    KL(q(x_{t-1} | x_t, x_0) ‖ p(x_{t-1} | x_t)), and at t = 0 the negative log likelihood of the 8-bit `x_0`. The
    mean of p is that of `predicted_x_0`, not clipped; its variance lies by `fraction` (B, …) between the posterior's
    and beta.
    """
    true = posterior_mean_variance(schedule, x_0, x_t, t)
    mean = posterior_mean_variance(schedule, predicted_x_0, x_t, t).mean
    high = at(schedule.betas.log(), t, x_t)
    log_variance = interpolate_log_variance(fraction, true.log_variance, high)
    kl = gaussian_kl(true.mean, true.log_variance, mean, log_variance)
    nll = discretised_nll(x_0, mean, log_variance)
    per_dimension = torch.where(t.reshape(-1, *(1,) * (x_t.ndim - 1)) == 0, nll, kl)
    return per_dimension.flatten(1).mean(dim=1) / math.log(2)


def gaussian_kl(mean_q: Tensor, log_variance_q: Tensor, mean_p: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(q ‖ p) of two diagonal Gaussians, elementwise, in nats."""
    ratio = (log_variance_q - log_variance_p).exp()
    distance = (mean_q - mean_p).square() * (-log_variance_p).exp()
    return 0.5 * (log_variance_p - log_variance_q + ratio + distance - 1)


def discretised_nll(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """-log of the Gaussian's mass on the 8-bit bin of `x_0` in [-1, 1], elementwise, in nats (Ho et al. 2020, eq. 13).

    The outermost bins reach to infinity. A mass below 1e-12 counts as 1e-12.
    """
    precision = (-0.5 * log_variance).exp()
    below = torch.special.ndtr((x_0 - mean - HALF_BIN) * precision)
    above = torch.special.ndtr((x_0 - mean + HALF_BIN) * precision)
    below = torch.where(x_0 < -0.999, torch.zeros_like(below), below)
    above = torch.where(x_0 > 0.999, torch.ones_like(above), above)
    return -(above - below).clamp(min=MIN_PROBABILITY).log()
