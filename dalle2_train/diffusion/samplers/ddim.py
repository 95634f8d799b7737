"""DDIM (Song et al. 2021).

B batch, C channels; x any shape (B, C, …).
"""

from torch import Tensor

from dalle2_train.diffusion.samplers.steps import Seen


def ddim_step(now: Seen, _earlier: Seen | None, eta: float) -> tuple[Tensor, Tensor | None]:
    """Mean (B, C, …) and standard deviation after the step: eq. 12 and 16, eps that of the thresholded x_0."""
    _, a, a_before, beta = now.step
    eps = (now.x_t - a.sqrt() * now.x_0) / (1 - a).sqrt()
    variance = eta**2 * (1 - a_before) / (1 - a) * beta
    mean = a_before.sqrt() * now.x_0 + (1 - a_before - variance).clamp(min=0).sqrt() * eps
    return mean, variance.sqrt() if eta > 0 else None
