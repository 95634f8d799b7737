"""From noise to a sample, step by step, with any denoiser.

B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import PredictionType, to_eps, to_x_0
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.diffusion.variance import interpolate_log_variance
from dalle2_train.errors import InputError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, …), t (B,) int64) → prediction (B, C, …), or (B, 2C, …) with the variance behind."""

MIN_VARIANCE = 1e-20


@dataclass(frozen=True)
class SamplerConfig:
    """How a sample is drawn."""

    name: Literal["ddpm", "ddim", "dpm_solver"] = "ddpm"
    """ddpm: ancestral, over strided timesteps, equal to diffusers' UnCLIPScheduler. ddim: Song et al. 2021.
    dpm_solver: DPM-Solver++(2M) of Lu et al. 2022, deterministic."""
    num_steps: int = 25
    """Number of steps, each one call of the network (two with guidance)."""
    eta: float = 0.0
    """ddim's noise: 0 is deterministic, 1 has the posterior's variance."""
    variance: Literal["fixed_small_log", "learned_range"] = "fixed_small_log"
    """ddpm's variance: the posterior's, or the one the network has learned."""
    clip_sample_range: float | None = 1.0
    """Every predicted x_0 is clamped to ± this; null: not at all."""
    threshold_quantile: float | None = None
    """Dynamic thresholding (Saharia et al. 2022): where this share of a sample's |x_0| exceeds the clip range, x_0 is
    clamped there instead and scaled back into the range; 0.995 in the paper. null: static clamping."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"sampler num_steps {self.num_steps} must be at least 1")
        if self.eta < 0:
            raise InputError(f"sampler eta {self.eta} must not be negative")
        if self.name != "ddpm" and self.variance == "learned_range":
            raise InputError(f"sampler {self.name} has no use for variance learned_range: use ddpm")
        if self.name != "ddim" and self.eta != 0:
            raise InputError(f"sampler {self.name} has no use for eta {self.eta}: leave it 0, or use ddim")
        if self.clip_sample_range is not None and self.clip_sample_range <= 0:
            raise InputError(f"sampler clip_sample_range {self.clip_sample_range} must be positive, or null")
        if self.threshold_quantile is not None:
            if self.clip_sample_range is None:
                raise InputError(
                    "sampler threshold_quantile scales into clip_sample_range, which is null: set it"
                )
            if not 0 < self.threshold_quantile <= 1:
                raise InputError(
                    f"sampler threshold_quantile {self.threshold_quantile} must be in (0, 1], or null"
                )


class Step(NamedTuple):
    """One step from timestep `t` down to the one before it in the chosen sequence."""

    t: int
    a: Tensor  # (), ᾱ at t
    a_before: Tensor  # (), ᾱ at the timestep the step arrives at; 1 at the end
    beta: Tensor  # (), the variance that the forward process adds between the two


def timesteps(num_train_steps: int, num_steps: int) -> list[int]:
    """`num_steps` of the timesteps, evenly from T - 1 down to 0, as UnCLIPScheduler rounds them."""
    if num_steps > num_train_steps:
        raise InputError(f"sampler num_steps {num_steps} must not exceed the schedule's {num_train_steps}")
    if num_steps == 1:
        return [num_train_steps - 1]
    stride = (num_train_steps - 1) / (num_steps - 1)
    return [round(i * stride) for i in reversed(range(num_steps))]


@torch.no_grad()
def sample(
    denoise: Denoise,
    x_T: Tensor,  # noqa: N803
    schedule: NoiseSchedule,
    config: SamplerConfig,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """Draw x_0 (B, C, …) from `x_T` (B, C, …), standard Gaussian noise.

    `noise(i)` gives step i's standard Gaussian noise (B, C, …); it is asked, in order, only for steps that add noise:
    every one but the last; ddim's at eta 0 and dpm_solver's ask for none. `schedule` is on x_T's device.

    All coefficients are computed in x_T's precision, at least float32. That is how diffusers computes them, and it
    matters: in float32 the last step of 1000 scales x_0 by 0.9995, which an exported model would do too.
    """
    x_t = x_T
    schedule = schedule.computed_in(torch.promote_types(x_T.dtype, torch.float32))
    steps = list_steps(schedule, config)
    earlier: tuple[Step, Tensor] | None = None
    for i, step in enumerate(steps):
        t = torch.full((len(x_t),), step.t, device=x_t.device)  # (B,)
        prediction, fraction = split_variance(denoise(x_t, t), x_t.shape[1], config)
        x_0 = to_x_0(schedule, x_t, t, prediction, config.prediction_type)
        x_0 = threshold(x_0, config)
        if config.name == "ddpm":
            mean, std = ddpm_step(step, x_0, x_t, fraction)
        elif config.name == "ddim":
            mean, std = ddim_step(step, x_0, x_t, config.eta)
        else:
            mean, std = dpm_solver_step(step, x_0, x_t, earlier), None
            earlier = step, x_0
        is_last = i == len(steps) - 1
        x_t = mean if is_last or std is None else mean + std * noise(i)
    return x_t


def list_steps(schedule: NoiseSchedule, config: SamplerConfig) -> list[Step]:
    """The steps of `config`, first to last."""
    betas, alphas_cumprod = schedule
    one = torch.ones((), dtype=betas.dtype, device=betas.device)
    chosen = timesteps(schedule.num_steps, config.num_steps)
    steps = []
    for t, before in zip(chosen, [*chosen[1:], -1], strict=True):
        a, a_before = alphas_cumprod[t], alphas_cumprod[before] if before >= 0 else one
        beta = betas[t] if before == t - 1 else 1 - a / a_before
        steps.append(Step(t, a, a_before, beta))
    return steps


def split_variance(
    prediction: Tensor, num_channels: int, config: SamplerConfig
) -> tuple[Tensor, Tensor | None]:
    """The prediction of the mean (B, C, …), and the variance's (B, C, …) if the sampler uses one."""
    has_variance = prediction.shape[1] == 2 * num_channels
    if config.variance == "learned_range":
        assert has_variance, "a sampler with learned_range needs a network that predicts its variance"
        mean, fraction = prediction.chunk(2, dim=1)
        return mean, fraction
    return prediction[:, :num_channels], None


def threshold(x_0: Tensor, config: SamplerConfig) -> Tensor:
    """A predicted x_0 (B, …) within the clip range, statically or dynamically."""
    bound = config.clip_sample_range
    if bound is None:
        return x_0
    if config.threshold_quantile is None:
        return x_0.clamp(-bound, bound)
    reached = torch.quantile(x_0.flatten(1).abs(), config.threshold_quantile, dim=1)  # (B,)
    reached = reached.clamp(min=bound).reshape(-1, *(1,) * (x_0.ndim - 1))
    return x_0.clamp(-reached, reached) * (bound / reached)


def ddpm_step(step: Step, x_0: Tensor, x_t: Tensor, fraction: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean (B, C, …) and standard deviation after the step: eq. 7 of Ho et al. 2020 between strided timesteps.

    The variance is the posterior's, or lies by `fraction` (B, C, …) between it and beta.
    """
    _, a, a_before, beta = step
    of_x_0 = a_before.sqrt() * beta / (1 - a)
    of_x_t = (1 - beta).sqrt() * (1 - a_before) / (1 - a)
    mean = of_x_0 * x_0 + of_x_t * x_t
    log_variance = ((1 - a_before) / (1 - a) * beta).clamp(min=MIN_VARIANCE).log()
    if fraction is not None:
        log_variance = interpolate_log_variance(fraction, log_variance, beta.log())
    return mean, (0.5 * log_variance).exp()


def ddim_step(step: Step, x_0: Tensor, x_t: Tensor, eta: float) -> tuple[Tensor, Tensor | None]:
    """Mean (B, C, …) and standard deviation after the step: eq. 12 and 16 of Song et al. 2021, eps that of `x_0`."""
    _, a, a_before, beta = step
    eps = (x_t - a.sqrt() * x_0) / (1 - a).sqrt()
    variance = eta**2 * (1 - a_before) / (1 - a) * beta
    mean = a_before.sqrt() * x_0 + (1 - a_before - variance).clamp(min=0).sqrt() * eps
    return mean, variance.sqrt() if eta > 0 else None


def dpm_solver_step(step: Step, x_0: Tensor, x_t: Tensor, earlier: tuple[Step, Tensor] | None) -> Tensor:
    """x (B, C, …) after the step: algorithm 2 of Lu et al. 2022, with the `earlier` step and the x_0 it predicted.

    x_0 is taken to move on a line in λ = ½ log SNR; without an earlier step, and on the last one, to stand still.
    """
    if step.a_before == 1:  # λ is infinite there
        return x_0
    h = _half_log_snr(step.a_before) - _half_log_snr(step.a)
    if earlier is not None:
        earlier_step, earlier_x_0 = earlier
        h_earlier = _half_log_snr(step.a) - _half_log_snr(earlier_step.a)
        x_0 = x_0 + h / (2 * h_earlier) * (x_0 - earlier_x_0)
    return ((1 - step.a_before) / (1 - step.a)).sqrt() * x_t - step.a_before.sqrt() * torch.expm1(-h) * x_0


def _half_log_snr(a: Tensor) -> Tensor:
    return 0.5 * (a / (1 - a)).log()


@torch.no_grad()
def invert(denoise: Denoise, x_0: Tensor, schedule: NoiseSchedule, config: SamplerConfig) -> Tensor:
    """The noise x_T (B, C, …) from which ddim with eta 0 draws `x_0` (B, C, …): its steps backwards, up to t = T - 1.

    Appendix F of Dhariwal & Nichol 2021. A step is taken with the eps predicted where it starts, sampling takes it with
    that of the other end: the more steps, the nearer. `config` is ddim's with eta 0; what is clipped cannot be undone.
    """
    if (
        config.name != "ddim"
        or config.eta != 0
        or config.clip_sample_range is not None
        or config.num_steps < 2
    ):
        raise InputError("inversion needs a sampler ddim with eta 0, clip_sample_range null and num_steps 2 or more, "
                         f"not {config}")  # fmt: skip
    schedule = schedule.computed_in(torch.promote_types(x_0.dtype, torch.float32))
    upwards = list_steps(schedule, config)[::-1]
    x_t = x_0  # as if it were x at t = 0, where there is next to no noise
    for here, there in pairwise(upwards):
        t = torch.full((len(x_t),), here.t, device=x_t.device)  # (B,)
        prediction, _ = split_variance(denoise(x_t, t), x_t.shape[1], config)
        eps = to_eps(schedule, x_t, t, prediction, config.prediction_type)
        implied_x_0 = (x_t - (1 - here.a).sqrt() * eps) / here.a.sqrt()
        x_t = there.a.sqrt() * implied_x_0 + (1 - there.a).sqrt() * eps
    return x_t
