"""From the networks' range to a picture's bytes."""

import torch
from torch import Tensor


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] → 0 … 255, rounded to nearest."""
    return ((image.clamp(-1, 1) * 0.5 + 0.5) * 255).round().to(torch.uint8)
