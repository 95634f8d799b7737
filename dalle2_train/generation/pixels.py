"""From the networks' range to a picture's bytes, and how near two pictures are."""

import torch
from torch import Tensor


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] → 0 … 255, rounded to nearest."""
    return ((image.clamp(-1, 1) * 0.5 + 0.5) * 255).round().to(torch.uint8)


def psnr(image: Tensor, other: Tensor, span: float) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures (…, C, H, W) whose values reach over `span`; of each, (…)."""
    error = (image.double() - other.to(image.device).double()).square().mean((-3, -2, -1))
    return 10 * torch.log10(span**2 / error)
