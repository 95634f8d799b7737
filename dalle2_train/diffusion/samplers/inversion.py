"""DDIM backwards: the noise from which a sample is drawn (appendix F of Dhariwal & Nichol 2021).

B batch, C channels; x any shape (B, C, …), T training timesteps.
"""

from itertools import pairwise

import torch
from torch import Tensor

from dalle2_train.diffusion.prediction import check_predictable, to_eps
from dalle2_train.diffusion.samplers.config import SamplerConfig
from dalle2_train.diffusion.samplers.loop import split_variance
from dalle2_train.diffusion.samplers.steps import Denoise, list_steps
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError


@torch.no_grad()
def invert(denoise: Denoise, x_0: Tensor, schedule: NoiseSchedule, config: SamplerConfig) -> Tensor:
    """The noise x_T (B, C, …) from which ddim with eta 0 draws `x_0` (B, C, …): its steps backwards, up to t = T - 1.

    A step is taken with the eps predicted where it starts, sampling takes it with that of the other end: the more
    steps, the nearer.
    Errors: InputError unless `config` is ddim's with eta 0, without thresholding: what is clipped cannot be undone.
    """
    is_reversible = config.name == "ddim" and config.eta == 0 and config.clip_sample_range is None
    if not is_reversible or config.num_steps < 2:
        raise InputError("inversion needs a sampler ddim with eta 0, clip_sample_range null and num_steps 2 or more, "
                         f"not {config}")  # fmt: skip
    check_predictable(config.prediction_type, schedule.zero_terminal_snr)
    schedule = schedule.computed_in(torch.promote_types(x_0.dtype, torch.float32))
    upwards = list_steps(schedule, config.num_steps)[::-1]
    x_t = x_0  # as if it were x at t = 0, where there is next to no noise
    for here, there in pairwise(upwards):
        t = torch.full((len(x_t),), here.t, device=x_t.device)  # (B,)
        prediction, _ = split_variance(denoise(x_t, t), x_t.shape[1])
        eps = to_eps(schedule, x_t, t, prediction, config.prediction_type)
        implied_x_0 = (x_t - (1 - here.a).sqrt() * eps) / here.a.sqrt()
        x_t = there.a.sqrt() * implied_x_0 + (1 - there.a).sqrt() * eps
    return x_t
