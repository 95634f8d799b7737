"""The loop that all samplers share: predict, threshold, move, add noise.

B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import check_predictable, to_x_0
from dalle2_train.diffusion.samplers.analytic_dpm import analytic_dpm_step
from dalle2_train.diffusion.samplers.config import SamplerConfig
from dalle2_train.diffusion.samplers.ddim import ddim_step
from dalle2_train.diffusion.samplers.ddpm import ddpm_step
from dalle2_train.diffusion.samplers.dpm_solver import dpm_solver_step
from dalle2_train.diffusion.samplers.steps import Denoise, Move, Seen, Step, list_steps
from dalle2_train.diffusion.samplers.threshold import threshold
from dalle2_train.diffusion.schedule import NoiseSchedule


@torch.no_grad()
def sample(
    denoise: Denoise,
    x_T: Tensor,  # noqa: N803
    schedule: NoiseSchedule,
    config: SamplerConfig,
    noise: Callable[[int], Tensor],
    x_0_variance: Tensor | None = None,
) -> Tensor:
    """Draw x_0 (B, C, …) from `x_T` (B, C, …), standard Gaussian noise.

    `noise(i)` gives step i's standard Gaussian noise (B, C, …); it is asked, in order, only for steps that add noise:
    every one but the last; ddim's at eta 0 and dpm_solver's ask for none. `schedule` is on x_T's device.
    `x_0_variance` (T,): what analytic_dpm needs, see `analytic_dpm.estimate_x_0_variance`.

    All coefficients are computed in x_T's precision, at least float32. That is how diffusers computes them, and it
    matters: in float32 the last step of 1000 scales x_0 by 0.9995, which an exported model would do too.
    Errors: InputError where a predicted eps cannot tell x_0, ᾱ_T being 0.
    """
    check_predictable(config.prediction_type, schedule.zero_terminal_snr)
    schedule = schedule.computed_in(torch.promote_types(x_T.dtype, torch.float32))
    move, x_t, earlier = mover(config, x_0_variance), x_T, None
    for i, step in enumerate(list_steps(schedule, config.num_steps)):
        now = see(denoise, x_t, step, schedule, config)
        x_t, earlier = arrive(move, now, earlier, partial(noise, i)), now
    return x_t


def split_variance(prediction: Tensor, num_channels: int) -> tuple[Tensor, Tensor | None]:
    """The prediction of the mean (B, C, …), and the variance's (B, C, …) if the network has one."""
    has_variance = prediction.shape[1] == 2 * num_channels
    return prediction[:, :num_channels], prediction[:, num_channels:] if has_variance else None


def see(denoise: Denoise, x_t: Tensor, step: Step, schedule: NoiseSchedule, config: SamplerConfig) -> Seen:
    """What is predicted where `step` starts, at `x_t` (B, C, …). `schedule` is computed in x_t's precision."""
    t = torch.full((len(x_t),), step.t, device=x_t.device)  # (B,)
    prediction, fraction = split_variance(denoise(x_t, t), x_t.shape[1])
    x_0 = to_x_0(schedule, x_t, t, prediction, config.prediction_type)
    return Seen(step, x_t, threshold(x_0, config.clip_sample_range, config.threshold_quantile), fraction)


def arrive(move: Move, now: Seen, earlier: Seen | None, noise: Callable[[], Tensor]) -> Tensor:
    """x (B, C, …) after the step `now`; `noise` is asked where the sampler adds some, which it never does at last."""
    mean, std = move(now, earlier)
    return mean if now.step.is_last or std is None else mean + std * noise()


def mover(config: SamplerConfig, x_0_variance: Tensor | None = None) -> Move:
    """The sampler that `config` names; `x_0_variance` as in `sample`."""
    match config.name:
        case "ddpm":
            return partial(ddpm_step, variance=config.variance)
        case "ddim":
            return partial(ddim_step, eta=config.eta)
        case "dpm_solver":
            return dpm_solver_step
        case "analytic_dpm":
            assert x_0_variance is not None, "analytic_dpm needs the variance of x_0 given x_t"
            return partial(analytic_dpm_step, x_0_variance=x_0_variance)
