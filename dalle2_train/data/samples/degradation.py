"""What an upsampler is shown beside a picture: the picture made small and worse, drawn by the visit's key.

Loader workers run it: nothing here may import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from dalle2_train.data.pictures.bsr import BsrConfig, degrade
from dalle2_train.data.pictures.picture import Picture
from dalle2_train.data.samples.draws import generator


@dataclass(frozen=True)
class Degradation:
    """Equal keys give equal pictures."""

    size: int
    """S, pixels a side of the small picture."""
    config: BsrConfig

    def __call__(self, picture: Picture, key: int) -> Picture:
        """(H, H, 3) → (S, S, 3)."""
        return degrade(picture, self.size, self.config, generator(key, "degradation"))
