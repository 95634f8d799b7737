"""The residual block of the U-Nets, with an optional change of resolution inside.

B batch, C channels, H W pixels, D width of the time vector.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.networks.init import zero_init

EPS = 1e-5

Resample = Literal["none", "down", "up"]


def resample(x: Tensor, how: Resample) -> Tensor:
    """Halve by 2 × 2 averages, double by repetition, or leave: (B, C, H, W) → (B, C, H', W')."""
    if how == "down":
        return F.avg_pool2d(x, kernel_size=2)
    if how == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return x


class ResnetBlock(nn.Module):
    """BigGAN's residual block as in Dhariwal & Nichol 2021; the parameter names of diffusers' `ResnetBlock2D`.

    The time vector scales and shifts the second normalisation's output (`scale_shift`), or is added before it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        num_groups: int,
        *,
        scale_shift: bool,
        dropout: float = 0.0,
        how: Resample = "none",
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.how: Resample = how
        self.norm1 = nn.GroupNorm(num_groups, in_channels, eps=EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, 2 * out_channels if scale_shift else out_channels)
        self.norm2 = nn.GroupNorm(num_groups, out_channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1))
        same = in_channels == out_channels
        self.conv_shortcut = None if same else nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor, activated_time: Tensor) -> Tensor:
        """`x` (B, C, H, W), `activated_time` (B, D): SiLU is already applied, once for all blocks."""
        h = self.conv1(resample(F.silu(self.norm1(x)), self.how))  # (B, C', H', W')
        h = self.dropout(F.silu(self.condition(h, activated_time)))
        h = self.conv2(h)  # (B, C', H', W')
        x = resample(x, self.how)
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))  # (B, C', H', W')

    def condition(self, h: Tensor, activated_time: Tensor) -> Tensor:
        time = self.time_emb_proj(activated_time)[:, :, None, None]  # (B, C' or 2C', 1, 1)
        if not self.scale_shift:
            return self.norm2(h + time)
        scale, shift = time.chunk(2, dim=1)
        return self.norm2(h) * (1 + scale) + shift
