"""The training losses of a denoiser.

B batch, C channels; x any shape (B, …), a prediction with learned variance (B, 2C, …).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import PredictionType, check_predictable, target, to_x_0
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.diffusion.variance import vlb_term
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is predicted, and how much each timestep counts: by its weight, and by how often it is drawn."""

    prediction_type: PredictionType = "epsilon"
    """epsilon: the noise. sample: x_0. v_prediction: v (which no diffusers unCLIP folder can hold)."""
    weighting: Literal["simple", "min_snr", "v"] = "simple"
    """simple: the prediction's own mean square error. min_snr: the error of x_0 weighted by min(SNR, min_snr_gamma)
    (Hang et al. 2023). v: the mean square error of v, whatever is predicted."""
    min_snr_gamma: float = 5.0
    """Cap of the signal-to-noise ratio in min_snr."""
    max_weight: float | None = None
    """Cap of w(t) on the prediction's own error; None: none. v on epsilon needs one: near T its w(t) is 1/ᾱ > 10⁸."""
    timestep_shift: float = 1.0
    """alpha of `shifted`, which the drawn timesteps go through. 1: they stay uniform; more: those with much noise, from
    which a picture is begun, are drawn oftener. No weight takes it back, not that of the variational bound either."""
    learned_variance: bool = False
    """Whether the prediction has as many channels again for the variance, trained by L_hybrid of Improved DDPM."""
    vlb_weight: float = 0.001
    """Weight of the variational bound, which is the sum over all timesteps (uniformly drawn) in bits per dimension."""
    variance_range_weight: float = 0.0
    """Weight of the mean square by which the variance's prediction leaves [-1, 1], where it interpolates between the
    posterior's variance and beta. While x_0 is still predicted badly the bound asks for more than beta, without end:
    a short training needs this, a long one comes back by itself."""

    def __post_init__(self) -> None:
        if self.min_snr_gamma <= 0:
            raise InputError(f"objective.min_snr_gamma {self.min_snr_gamma} must be positive")
        if self.max_weight is not None and self.max_weight <= 0:
            raise InputError(f"objective.max_weight {self.max_weight} must be positive, or null for no cap")
        if not 0 < self.timestep_shift < math.inf:
            raise InputError(
                f"objective.timestep_shift {self.timestep_shift} must be positive and finite, 1 for none"
            )
        for name in ("vlb_weight", "variance_range_weight"):
            if getattr(self, name) < 0:
                raise InputError(f"objective.{name} {getattr(self, name)} must not be negative")


def check_objective(config: ObjectiveConfig, zero_terminal_snr: bool) -> None:
    """Raises InputError for what noise alone, the last x_t, would not teach: eps, and whatever min_snr weighs."""
    check_predictable(config.prediction_type, zero_terminal_snr)
    if zero_terminal_snr and config.weighting == "min_snr":
        raise InputError(
            "objective.weighting is min_snr, but schedule.zero_terminal_snr is true: the last timestep has no signal "
            "and would weigh nothing; set weighting to simple or v, or zero_terminal_snr to false"
        )


def shifted(t: Tensor, num_steps: int, alpha: float) -> Tensor:
    """`t` (…) in [0, T), T = `num_steps`, moved towards T where alpha is over 1: alpha·t / (1 + (alpha - 1)·t / T).

    The form of the resolution-dependent shift of Esser et al. 2024 (for rectified flow), on the index of the timestep.
    """
    return alpha * t / (1 + (alpha - 1) * t / num_steps)


def denoising_loss(
    schedule: NoiseSchedule,
    config: ObjectiveConfig,
    prediction: Tensor,
    x_0: Tensor,
    x_t: Tensor,
    t: Tensor,
    eps: Tensor,
) -> Tensor:
    """The loss of every sample (B,), at least float32: w(t) · mean((prediction - target)²).

    With a learned variance `prediction` is (B, 2C, …), and vlb_weight · T · L_t is added, where L_t sees the mean
    without its gradient (L_hybrid, eq. 16 of Nichol & Dhariwal 2021). The arguments are what the loss is a function of:
    `x_0` (B, …) and `eps` (B, …), which made `x_t` (B, …) at `t` (B,).
    """
    dtype = torch.promote_types(x_0.dtype, torch.float32)
    prediction, x_0, x_t, eps = (tensor.to(dtype) for tensor in (prediction, x_0, x_t, eps))
    if config.learned_variance:
        prediction, fraction = prediction.chunk(2, dim=1)
    error = prediction - target(schedule, config.prediction_type, x_0, t, eps)
    loss = weights(schedule, config)[t].to(dtype) * error.square().flatten(1).mean(dim=1)
    if not config.learned_variance:
        return loss
    predicted_x_0 = to_x_0(schedule, x_t, t, prediction.detach(), config.prediction_type)
    vlb = vlb_term(schedule, x_0, x_t, t, predicted_x_0, fraction)
    excess = (fraction.abs() - 1).clamp(min=0).square().flatten(1).mean(dim=1)  # (B,)
    return loss + config.vlb_weight * schedule.num_steps * vlb + config.variance_range_weight * excess


def weights(schedule: NoiseSchedule, config: ObjectiveConfig) -> Tensor:
    """The factor w(t) on the square error of the prediction, at every timestep: (T,) float64.

    An error of eps is one of x_0 times √SNR, an error of v one of x_0 times √(SNR + 1), SNR = ᾱ / (1 - ᾱ).
    """
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    of_own_error = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}
    own = of_own_error[config.prediction_type]  # the weight on x_0's error that `simple` amounts to
    wanted = {"simple": own, "min_snr": snr.clamp(max=config.min_snr_gamma), "v": snr + 1}
    return (wanted[config.weighting] / own).clamp(max=config.max_weight or float("inf"))
