"""DDIM backwards: the noise from which a sample is drawn (appendix F of Dhariwal & Nichol 2021).

B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import check_predictable, to_eps
from dalle2_train.diffusion.samplers.config import SamplerConfig
from dalle2_train.diffusion.samplers.loop import split_variance
from dalle2_train.diffusion.samplers.steps import Denoise, Step, list_steps
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError


@torch.no_grad()
def invert(
    denoise: Denoise, x_0: Tensor, schedule: NoiseSchedule, config: SamplerConfig, num_refinements: int = 0
) -> Tensor:
    """The noise x_T (B, C, …) from which ddim with eta 0 draws `x_0` (B, C, …): its steps backwards, up to t = T - 1.

    A step is taken with the eps predicted where it starts, sampling takes it with that of the other end: the more
    steps, the nearer. Each of `num_refinements` takes every step again with the eps predicted where it led to, one
    more call of the network each, which nears the exact inverse where it converges (Pan et al. 2023). Exactly to
    invert what the network cannot draw takes an x_T that is no noise: its standard deviation, far from 1, tells.
    Errors: InputError unless `config` is ddim's with eta 0, without thresholding: what is clipped cannot be undone.
    """
    is_reversible = config.name == "ddim" and config.eta == 0 and config.clip_sample_range is None
    if not is_reversible or config.num_steps < 2:
        raise InputError("inversion needs a sampler ddim with eta 0, clip_sample_range null and num_steps 2 or more, "
                         f"not {config}")  # fmt: skip
    check_predictable(config.prediction_type, schedule.zero_terminal_snr)
    schedule = schedule.computed_in(torch.promote_types(x_0.dtype, torch.float32))

    def eps_at(step: Step, x_t: Tensor) -> Tensor:
        t = torch.full((len(x_t),), step.t, device=x_t.device)  # (B,)
        prediction, _ = split_variance(denoise(x_t, t), x_t.shape[1])
        return to_eps(schedule, x_t, t, prediction, config.prediction_type)

    steps = list_steps(schedule, config.num_steps)[::-1]
    before, x_t = x_0, x_0  # at first as if the picture were x at t = 0, where there is next to no noise
    for step, upper in zip(steps, [*steps[1:], None], strict=True):
        for _ in range(num_refinements):
            x_t = _climb(before, step.a_before, step.a, eps_at(step, x_t))
        if upper is not None:
            before, x_t = x_t, _climb(x_t, step.a, upper.a, eps_at(step, x_t))
    return x_t


def _climb(x: Tensor, a: Tensor, a_above: Tensor, eps: Tensor) -> Tensor:
    """From noise of level `a` to that of `a_above`, along `eps`: ddim's step the other way."""
    x_0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
    return a_above.sqrt() * x_0 + (1 - a_above).sqrt() * eps
