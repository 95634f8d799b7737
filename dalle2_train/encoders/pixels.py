"""From uint8 pictures to what CLIP's vision tower sees.

Legend: B batch, C=3, H W picture size, S CLIP's image size.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD


class PixelStatistics(NamedTuple):
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CLIP_PIXELS = PixelStatistics(tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))


def to_pixel_values(image: Tensor, image_size: int, statistics: PixelStatistics = CLIP_PIXELS) -> Tensor:
    """uint8 (B, C, H, W) → float32 (B, C, S, S): shorter side to S, centre crop, rescale, normalise.

    Equal to transformers' CLIPImageProcessor on pictures of CLIP's own size. Others are resized on the CPU in
    uint8, where torch's antialiased bicubic does PIL's arithmetic, and come back to the picture's device.
    """
    pixels = _cover(image, image_size)  # (B, C, S, S)
    mean = pixels.new_tensor(statistics.mean).view(1, -1, 1, 1)  # (1, C, 1, 1)
    std = pixels.new_tensor(statistics.std).view(1, -1, 1, 1)  # (1, C, 1, 1)
    return (pixels / 255 - mean) / std  # (B, C, S, S)


def _cover(image: Tensor, size: int) -> Tensor:
    height, width = image.shape[-2:]
    if min(height, width) != size:
        scale = size / min(height, width)
        target = (max(size, int(height * scale)), max(size, int(width * scale)))
        image = F.interpolate(image.cpu(), size=target, mode="bicubic", antialias=True).to(image.device)
    top, left = (image.shape[-2] - size) // 2, (image.shape[-1] - size) // 2
    return image[..., top : top + size, left : left + size].float()
