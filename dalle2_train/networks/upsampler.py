"""The upsampler: a U-Net without attention that denoises a large image beside its enlarged small one (§2.2 of unCLIP).

B batch, H W pixels of the large image.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.checks import check_dropout, check_levels, check_positive
from dalle2_train.networks.unet import UNet, UNetConfig


@dataclass(frozen=True)
class UpsamplerConfig:
    """The upsampler's shape; defaults are Karlo's 64 → 256."""

    low_size: int = 64
    """Side of the small image, in pixels."""
    high_size: int = 256
    """Side of the large image, in pixels."""
    channels: tuple[int, ...] = (320, 640, 960, 1280)
    """Width of each level; multiples of num_groups."""
    num_resnets: int = 3
    """Residual blocks per level on the way down (one more on the way up)."""
    num_groups: int = 32
    """Of every GroupNorm; divides every width. A narrow network needs fewer: a group of one channel forgets its mean,
    and with it the picture's colour."""
    dropout: float = 0.0
    """Dropout probability in the residual blocks."""
    scale_shift: bool = False
    """True: the time vector scales and shifts the second norm's output of a residual block, as in ADM and the decoder.
    False: it is added before that norm (Karlo)."""

    def __post_init__(self) -> None:
        check_positive(self, "low_size", "high_size", "num_resnets", "num_groups")
        check_dropout(self.dropout)
        if self.low_size >= self.high_size:
            raise InputError(f"low_size {self.low_size} must be smaller than high_size {self.high_size}")
        check_levels(self.high_size, self.channels, self.num_groups)


def enlarge(image: Tensor, size: int) -> Tensor:
    """(B, 3, h, w) → (B, 3, size, size), bicubic with antialiasing: what `UnCLIPPipeline` shows its upsampler."""
    return F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False, antialias=True)


class Upsampler(UNet):
    """Predicts from the noised large image and the enlarged small one; the state_dict of diffusers' `UNet2DModel`."""

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__(
            UNetConfig(
                in_channels=6,
                out_channels=3,
                channels=config.channels,
                num_resnets=config.num_resnets,
                attention=(False,) * len(config.channels),
                mid_attention=False,
                head_dim=0,
                context_dim=0,
                scale_shift=config.scale_shift,
                dropout=config.dropout,
                num_groups=config.num_groups,
                time_dim=4 * config.channels[0],
            )
        )
        self.config = config

    def forward(self, x_t: Tensor, t: Tensor, low_res_image: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`x_t` (B, 3, H, W), `t` (B,), `low_res_image` (B, 3, H, W) already `enlarge`d. Returns (B, 3, H, W)."""
        return super().forward(torch.cat([x_t, low_res_image], dim=1), t)


def diffusers_config(config: UpsamplerConfig) -> dict[str, Any]:
    """The keyword arguments of the `UNet2DModel` that computes the same function."""
    num_levels = len(config.channels)
    return {
        "sample_size": config.high_size,
        "in_channels": 6,
        "out_channels": 3,
        "block_out_channels": config.channels,
        "layers_per_block": config.num_resnets,
        "down_block_types": ("ResnetDownsampleBlock2D",) * num_levels,
        "up_block_types": ("ResnetUpsampleBlock2D",) * num_levels,
        "add_attention": False,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "dropout": config.dropout,
        "norm_num_groups": config.num_groups,
    }
