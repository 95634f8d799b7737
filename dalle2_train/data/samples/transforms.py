"""What a sample becomes at one visit: the crop of its picture and its caption, drawn by the visit's key alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from dalle2_train.data.pictures.decode import decode_image
from dalle2_train.data.pictures.picture import Picture, Square, centre
from dalle2_train.data.samples.draws import uniform
from dalle2_train.data.shards.members import captions
from dalle2_train.data.shards.reader import RawSample


@dataclass(frozen=True)
class Transforms:
    """The settings, which `DataConfig` explains. Equal keys give equal samples."""

    crop: Literal["center", "random"] = "center"
    min_crop_fraction: float = 1.0
    flip: bool = False
    captions: str = "txt"

    @property
    def draws(self) -> bool:
        """Whether one visit may differ from another."""
        return self.crop == "random" or self.flip or self.captions != "txt"

    def picture(self, data: bytes, size: int, key: int) -> Picture:
        """uint8 (S, S, 3). A damaged picture: BrokenImageError."""
        crop = centre if self.crop == "center" else partial(self._random_square, key)
        picture = decode_image(data, size, crop)
        mirrored = self.flip and uniform(key, "flip") < 0.5
        return np.ascontiguousarray(picture[:, ::-1]) if mirrored else picture

    def caption(self, raw: RawSample, key: int) -> str:
        """One of the sample's captions. DamagedError where it has none."""
        found = captions(raw, self.captions)
        return found[0] if len(found) == 1 else found[int(uniform(key, "caption") * len(found))]

    def _random_square(self, key: int, width: int, height: int) -> Square:
        """A square of a size between min_crop_fraction and 1 of the short side, and its place; both uniform."""
        short = min(width, height)
        fraction = self.min_crop_fraction + (1 - self.min_crop_fraction) * uniform(key, "crop size")
        side = max(1, round(short * fraction))
        left = int(uniform(key, "crop left") * (width - side + 1))
        top = int(uniform(key, "crop top") * (height - side + 1))
        return Square(left, top, side)
