"""Analytic-DPM (Bao et al. 2022): ancestral sampling with the variance that is optimal for the steps taken.

The reverse of a long step is wider than its posterior, because x_0 is not known but predicted. How much wider follows
from how uncertain x_0 is at each timestep, and that from the mean square of the predicted eps over data, which is that
of the score times 1 - ᾱ.
B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

import torch
from torch import Tensor

from dalle2_train.diffusion.samplers.ddpm import strided_posterior
from dalle2_train.diffusion.samplers.steps import Seen
from dalle2_train.diffusion.schedule import NoiseSchedule


def estimate_x_0_variance(schedule: NoiseSchedule, mean_squared_eps: Tensor, data_variance: float) -> Tensor:
    """The mean variance of a coordinate of x_0 given x_t, at every timestep: (T,).

    mean_squared_eps (T,): E[eps(x_t)²] over data, noise and coordinates, Γ(1 - ᾱ) in the paper's words. Its eq. 8
    without the step's part: (1 - ᾱ) / ᾱ · (1 - E[eps²]). Estimates are kept within theorem 2's bounds, and below
    `data_variance`, which knowing x_t can only diminish: near T that is the better bound.
    """
    a = schedule.alphas_cumprod
    unexplained = (1 - mean_squared_eps).clamp(min=0)  # (T,)
    # Where ᾱ is 0, x_t says nothing of x_0, and 0 / 0 says nothing either.
    return ((1 - a) / a * unexplained).nan_to_num(nan=data_variance).clamp(max=data_variance)


def analytic_dpm_step(now: Seen, _earlier: Seen | None, x_0_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, …) and standard deviation () after the step; `x_0_variance` (T,)."""
    posterior = strided_posterior(now)
    uncertain = posterior.of_x_0.square() * x_0_variance[now.step.t].to(posterior.of_x_0)
    return posterior.mean, torch.sqrt(posterior.variance + uncertain)
