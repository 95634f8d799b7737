"""What an upsampler is shown in training: a picture made small, perhaps blurred, and made large again.

Legend: B batch, H picture side, h small side, S crop side.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.upsampler import enlarge

KERNEL_SIZE = 3


@dataclass(frozen=True)
class GaussianBlurConfig:
    """Blur of the small picture (Saharia et al. 2021), made in the training step: what the paper does at 64 → 256."""

    kind: Literal["gaussian_blur"] = "gaussian_blur"
    sigma: float = 0.6
    """Pixels of the small picture; the kernel has 3. 0: none."""
    probability: float = 0.5
    """Share of samples that are blurred (Ho et al. 2021, cascaded diffusion: half of them)."""

    def __post_init__(self) -> None:
        if self.sigma < 0:
            raise InputError(f"sigma is {self.sigma}; it must be 0 or more")
        if not 0 <= self.probability <= 1:
            raise InputError(f"probability is {self.probability}; it must be in [0, 1]")


def low_res(image: Tensor, low_size: int, blur_sigma: float, blurred: Tensor) -> Tensor:
    """Pictures (B, 3, H, H) in [-1, 1] → what is left of them at `low_size`, enlarged to (B, 3, H, H).

    Samples where `blurred` (B,) is true are blurred while small. Nothing leaves [-1, 1] before the enlargement, as
    the decoder's pictures do not.
    """
    small = shrink(image, low_size)  # (B, 3, h, h)
    small = torch.where(blurred.view(-1, 1, 1, 1), gaussian_blur(small, blur_sigma), small)  # (B, 3, h, h)
    return enlarge(small, image.shape[-1])  # (B, 3, H, H)


def shrink(image: Tensor, size: int) -> Tensor:
    """(B, 3, H, H) → (B, 3, size, size), antialiased bicubic, kept in [-1, 1]."""
    small = F.interpolate(image, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
    return small.clamp(-1, 1)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur by a 3 × 3 Gaussian of `sigma` pixels, mirrored at the edges; sigma 0 changes nothing."""
    if sigma == 0:
        return image
    side = math.exp(-0.5 / sigma**2)
    line = image.new_tensor([side, 1.0, side]) / (1 + 2 * side)  # (3,)
    kernel = torch.outer(line, line).expand(image.shape[1], 1, KERNEL_SIZE, KERNEL_SIZE)
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="reflect"), kernel, groups=image.shape[1])


def crop(image: Tensor, corners: Tensor, size: int) -> Tensor:
    """(B, C, H, H) → (B, C, size, size), each sample from its own top left corner, `corners` (B, 2)."""
    places = zip(image, corners.tolist(), strict=True)
    return torch.stack([picture[:, top : top + size, left : left + size] for picture, (top, left) in places])
