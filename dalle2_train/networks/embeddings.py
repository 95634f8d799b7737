"""Timesteps as vectors: the sinusoids and the two-layer MLP after them.

B batch, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Sinusoids of `t` (B,) at `dim` / 2 geometric frequencies from 1 to 1/10000, cosines first: (B, dim) float32.

    Vaswani et al. 2017 in the order of Dhariwal & Nichol 2021. Always float32, and in this order of operations, so
    that networks of every dtype see the same sinusoids as in diffusers.
    """
    assert t.ndim == 1 and dim % 2 == 0
    half = dim // 2
    exponents = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t[:, None].float() * exponents.exp()[None, :]  # (B, D/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, D)


class TimestepEmbedding(nn.Module):
    """Timesteps (B,) → conditioning vectors (B, out_dim): sinusoids, linear, SiLU, linear."""

    def __init__(self, sinusoid_dim: int, out_dim: int) -> None:
        super().__init__()
        self.sinusoid_dim = sinusoid_dim
        self.linear_1 = nn.Linear(sinusoid_dim, out_dim)
        self.linear_2 = nn.Linear(out_dim, out_dim)

    def forward(self, t: Tensor) -> Tensor:
        sinusoids = timestep_embedding(t, self.sinusoid_dim).to(self.linear_1.weight.dtype)  # (B, D)
        return self.linear_2(F.silu(self.linear_1(sinusoids)))  # (B, out_dim)
