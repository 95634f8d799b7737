"""The optimal denoiser of Gaussian data, in closed form.

B samples, D coordinates.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Optimal(NamedTuple):
    """What is best predicted."""

    x_0: Tensor
    """E[x_0 | x_t] (B, D)"""
    eps: Tensor
    """E[eps | x_t] (B, D)"""


def optimal(x_t: Tensor, alpha_bar: Tensor, mean: Tensor, covariance: Tensor) -> Optimal:
    """Of x_0 ~ N(mean (D,), covariance (D, D)), told x_t (B, D) at `alpha_bar` ()."""
    marginal = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(mean), dtype=mean.dtype)
    white = torch.linalg.solve(marginal, (x_t - alpha_bar.sqrt() * mean).T).T  # (B, D)
    return Optimal(mean + alpha_bar.sqrt() * white @ covariance, (1 - alpha_bar).sqrt() * white)
