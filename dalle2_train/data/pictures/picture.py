"""Pixels to the square that is trained on: cropped, on white, resized with antialiasing, turned upright.

H height, W width, S the target size.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""RGB, (H, W, 3)."""

_ROWS = 256
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(ValueError):
    """The bytes are no picture that we read; the message says why."""


class Square(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    side: int


def centre(width: int, height: int) -> Square:
    """The largest square in the middle."""
    side = min(width, height)
    return Square((width - side) // 2, (height - side) // 2, side)


class Opened(NamedTuple):
    """A picture as it is stored: its size in pixels, and how EXIF says that it is to be turned (1: not at all)."""

    width: int
    height: int
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(W, H) as it is to be seen."""
        return (self.height, self.width) if self.orientation in (5, 6, 7, 8) else (self.width, self.height)

    def stored(self, upright: Square) -> Square:
        """A square of the upright picture, where it lies in the stored one."""
        left, top, side = upright
        if self.orientation in (5, 6, 7, 8):
            left, top = top, left
        if self.orientation in (2, 3, 7, 8):
            left = self.width - side - left
        if self.orientation in (3, 4, 6, 7):
            top = self.height - side - top
        return Square(left, top, side)


def render(image: Image.Image, scale: float, square: Square, size: int, orientation: int) -> Picture:
    """RGB on white, uint8 (S, S, 3).

    image: the stored picture, decoded to `scale` times its size; square: in pixels of the full size.
    """
    left, top = scale * square.left, scale * square.top
    right, bottom = left + scale * square.side, top + scale * square.side
    corner = math.floor(left), math.floor(top)
    # Cropped first: resizing a box would mix in what lies outside of it.
    image = _flat_part(image, (*corner, math.ceil(right), math.ceil(bottom)))
    box = (left - corner[0], top - corner[1], right - corner[0], bottom - corner[1])
    if box != (0, 0, size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC, box)
    if (turn := _TURNS.get(orientation)) is not None:
        image = image.transpose(turn)
    return np.array(image, dtype=np.uint8)


def _flat_part(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """`flatten` of a part, some rows at a time: transparency needs several copies of what it is made of."""
    left, top, right, bottom = box
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.crop(box)
    found = Image.new("RGB", (right - left, bottom - top))
    for start in range(top, bottom, _ROWS):
        rows = image.crop((left, start, right, min(start + _ROWS, bottom)))
        found.paste(flatten(rows), (0, start - top))
    return found


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent becomes white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16 bit greys instead of scaling them.
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")
