"""Classifier-free guidance (Ho & Salimans 2021)."""

import torch
from torch import Tensor

MIN_STD = 1e-12


def guide(
    cond: Tensor, uncond: Tensor, scale: float, num_guided: int | None = None, rescale: float = 0.0
) -> Tensor:
    """uncond + scale · (cond - uncond), of predictions (B, C, …); scale 1 gives `cond`, 0 gives `uncond`.

    Of more than `num_guided` channels the rest, a learned variance, is `cond`'s own, as in GLIDE and UnCLIPPipeline.
    rescale: see `rescaled`.
    """
    own = cond[:, cond.shape[1] if num_guided is None else num_guided :]
    cond, uncond = cond[:, :num_guided], uncond[:, :num_guided]
    guided = uncond + scale * (cond - uncond)
    if rescale:
        guided = rescaled(guided, cond, rescale)
    return torch.cat([guided, own], dim=1) if own.shape[1] else guided


def rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """`guided` (B, …), by `share` of the way scaled to the standard deviation that each sample of `cond` has.

    Eq. 15 and 16 of Lin et al. 2023: large scales overexpose, most where the last x_t is noise alone.
    """
    # A network that has learned nothing yet predicts the same everywhere.
    dtype = torch.promote_types(guided.dtype, torch.float32)  # MIN_STD is no number of float16's
    wanted, found = (x.flatten(1).to(dtype).std(dim=1) for x in (cond, guided))  # (B,)
    factor = share * wanted / found.clamp(min=MIN_STD) + 1 - share  # (B,)
    return (guided * factor.reshape(-1, *(1,) * (guided.ndim - 1))).to(guided.dtype)
