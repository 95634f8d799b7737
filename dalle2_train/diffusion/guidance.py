"""Classifier-free guidance (Ho & Salimans 2021)."""

import torch
from torch import Tensor


def guide(cond: Tensor, uncond: Tensor, scale: float, num_guided: int | None = None) -> Tensor:
    """uncond + scale · (cond - uncond), of predictions (B, C, …); scale 1 gives `cond`, 0 gives `uncond`.

    Of more than `num_guided` channels the rest, a learned variance, is `cond`'s own, as in GLIDE and UnCLIPPipeline.
    """
    if num_guided is None or num_guided == cond.shape[1]:
        return uncond + scale * (cond - uncond)
    guided = uncond[:, :num_guided] + scale * (cond[:, :num_guided] - uncond[:, :num_guided])
    return torch.cat([guided, cond[:, num_guided:]], dim=1)
