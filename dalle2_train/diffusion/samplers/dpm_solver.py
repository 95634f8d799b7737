"""DPM-Solver++(2M) (Lu et al. 2022).

B batch, C channels; x any shape (B, C, …).
"""

import torch
from torch import Tensor

from dalle2_train.diffusion.samplers.steps import Seen


def dpm_solver_step(now: Seen, earlier: Seen | None) -> tuple[Tensor, None]:
    """x (B, C, …) after the step: algorithm 2, with the `earlier` step and the x_0 predicted there.

    x_0 is taken to move on a line in λ = ½ log SNR; without an earlier step, on the last one, and where λ was minus
    infinity (ᾱ = 0), to stand still.
    """
    step, x_0 = now.step, now.x_0
    if step.a_before == 1:  # λ is infinite there
        return x_0, None
    h = _half_log_snr(step.a_before) - _half_log_snr(step.a)
    if earlier is not None:
        h_earlier = _half_log_snr(step.a) - _half_log_snr(earlier.step.a)
        x_0 = x_0 + h / (2 * h_earlier) * (x_0 - earlier.x_0)
    kept = ((1 - step.a_before) / (1 - step.a)).sqrt()
    return kept * now.x_t - step.a_before.sqrt() * torch.expm1(-h) * x_0, None


def _half_log_snr(a: Tensor) -> Tensor:
    return 0.5 * (a / (1 - a)).log()
