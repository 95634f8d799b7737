"""A picture of which a part is kept and the rest painted anew, at the size of each stage.

S the side of a square, in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from dalle2_train.data.pictures.decode import upright_size
from dalle2_train.errors import InputError
from dalle2_train.generation.manipulations.pictures import (
    decode_square,
    open_stages,
    picture_sizes,
    read_file,
)
from dalle2_train.generation.unclip import Unclip

_LIGHT = 128


class Canvas(NamedTuple):
    """As the decoder makes it, then as each upsampler does."""

    images: tuple[Tensor, ...]
    """uint8 (3, S, S)"""
    kept: tuple[Tensor, ...]
    """bool (1, S, S), True where the image stays."""


def open_canvas(picture_uri: str, mask_uri: str, unclip: Unclip) -> Canvas:
    """The picture and the mask in two files; errors as `open_stages` and `open_masks`."""
    images = open_stages(picture_uri, unclip)
    return Canvas(images, tuple(open_masks(mask_uri, picture_uri, picture_sizes(unclip))))


def open_masks(mask_uri: str, picture_uri: str, sizes: Sequence[int]) -> list[Tensor]:
    """What is kept of the picture in the file `picture_uri`, at each of `sizes`: bool (1, S, S).

    White and transparent pixels of the mask are painted anew, black ones kept, grey ones what they are nearer to. A
    pixel at a smaller size is kept where all that it covers is: nothing of what is painted over is seen.
    Errors: InputError for a mask of another size than the picture, or one that keeps everything.
    """
    data = read_file(mask_uri)
    side, (width, height) = _same_size(mask_uri, data, picture_uri)
    grey = decode_square(mask_uri, data, side).float().mean(dim=0, keepdim=True)  # (1, side, side)
    painted = (grey >= _LIGHT).float()
    if not painted.any():
        raise InputError(
            f"{mask_uri}: nothing in the middle square of its {width}x{height} pixels is white, so there is nothing to "
            "paint; make white what is to be new"
        )
    return [kept_at(painted, size) for size in sizes]


def kept_at(painted: Tensor, size: int) -> Tensor:
    """painted: float (1, side, side), 1 where new → bool (1, size, size), True where nothing under it is new."""
    return F.adaptive_max_pool2d(painted, size) == 0


def _same_size(mask_uri: str, mask: bytes, picture_uri: str) -> tuple[int, tuple[int, int]]:
    """(the shorter side, (width, height)) that picture and mask share."""
    sizes = upright_size(mask), upright_size(read_file(picture_uri))
    if sizes[0] != sizes[1]:
        of_mask, of_picture = (f"{width}x{height}" for width, height in sizes)
        raise InputError(
            f"{mask_uri} has {of_mask} pixels, {picture_uri} {of_picture}; make the mask as large"
        )
    return min(sizes[0]), sizes[0]
