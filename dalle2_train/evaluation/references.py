"""What the numbers are read against: noise below, real pictures above, blurred real pictures as a scale between.

Legend: B pictures, H W their size in pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dalle2_train import seeding


def blur(images: Tensor, size: int) -> Tensor:
    """uint8 (B, 3, H, W) shrunk to `size` pixels a side and enlarged again: what that many pixels can show."""
    small = F.interpolate(images.float(), (size, size), mode="bicubic", align_corners=False, antialias=True)
    large = F.interpolate(small.clamp(0, 255), images.shape[-2:], mode="bicubic", align_corners=False)
    return large.round().clamp(0, 255).to(torch.uint8)


def noise(images: Tensor, seed: int) -> Tensor:
    """Uniform random pixels in the shape of `images` (B, 3, H, W), uint8."""
    generator = seeding.generator(seed, "evaluation.noise")
    return torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8)
