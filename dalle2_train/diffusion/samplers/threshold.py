"""Keeps a predicted x_0 within the range that data have.

B batch; x any shape (B, …).
"""

import torch
from torch import Tensor


def threshold(x_0: Tensor, bound: float | None, quantile: float | None = None) -> Tensor:
    """`x_0` (B, …) within ± `bound`; None: as it is.

    Static: clamped. With a `quantile` dynamic (Saharia et al. 2022, §2.3): where that share of a sample's |x_0| exceeds
    the bound, it is clamped there and scaled down into the bound, which keeps the contrasts among its values.
    """
    if bound is None:
        return x_0
    if quantile is None:
        return x_0.clamp(-bound, bound)
    reached = torch.quantile(x_0.flatten(1).abs(), quantile, dim=1)  # (B,)
    reached = reached.clamp(min=bound).reshape(-1, *(1,) * (x_0.ndim - 1))
    return x_0.clamp(-reached, reached) * (bound / reached)
