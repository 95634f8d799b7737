"""A picture of which a part is kept and the rest painted anew, at the size of each stage.

S the side of a square, in pixels.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dalle2_train.data.pictures.decode import upright_size
from dalle2_train.errors import InputError
from dalle2_train.generation.manipulations.pictures import decode_square, picture_sizes, read_file
from dalle2_train.generation.unclip import Unclip

_LIGHT = 128
# Pixels on either side, of the coarser of both grids, that bicubic resampling weighs.
_SUPPORT = 2


class Canvas(NamedTuple):
    """As the decoder makes it, then as each upsampler does."""

    images: tuple[Tensor, ...]
    """uint8 (3, S, S)"""
    known: tuple[Tensor, ...]
    """bool (1, S, S), True where a stage is shown the image: nothing that is painted over has any share in it."""
    kept: Tensor
    """bool (1, S, S) of the last stage, True where the image stays."""


def open_canvas(picture_uri: str, mask_uri: str, unclip: Unclip) -> Canvas:
    """The picture and the mask in two files. Errors: InputError for another file, and as `open_mask`."""
    painted = open_mask(mask_uri, picture_uri)
    side, sizes = painted.shape[-1], picture_sizes(unclip)
    # Decoded whole: at a smaller scale a JPEG's blocks would mix what is kept with what is not.
    picture = decode_square(picture_uri, read_file(picture_uri), side)
    images = tuple(resized(picture, size) for size in sizes)
    return Canvas(images, tuple(known_at(painted, size) for size in sizes), kept_at(painted, sizes[-1]))


def open_mask(mask_uri: str, picture_uri: str) -> Tensor:
    """What is painted anew of the picture in the file `picture_uri`: 1 there, else 0, float (1, side, side).

    White and transparent pixels of the mask are painted anew, black ones kept, grey ones what they are nearer to.
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
    return painted


def resized(picture: Tensor, size: int) -> Tensor:
    """uint8 (3, side, side) → (3, size, size), as pictures of data are resized."""
    pixels = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    small = np.array(pixels.resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(small).permute(2, 0, 1).contiguous()


def kept_at(painted: Tensor, size: int) -> Tensor:
    """painted: float (1, side, side), 1 where new → bool (1, size, size), True where nothing under it is new."""
    return F.adaptive_max_pool2d(painted, size) == 0


def known_at(painted: Tensor, size: int) -> Tensor:
    """The same, True where nothing that `resized` makes the pixel of is new, which reaches beyond what it covers."""
    reach = _reach(painted.shape[-1], size).to(painted)  # (size, side)
    return reach @ painted @ reach.T == 0


def _reach(side: int, size: int) -> Tensor:
    """bool (size, side): of which pixels of a row bicubic resampling makes each of `size`."""
    if side == size:
        return torch.eye(side, dtype=torch.bool)
    scale = side / size
    centres = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    distance = (torch.arange(side) + 0.5 - centres).abs()
    return distance < _SUPPORT * max(scale, 1)


def _same_size(mask_uri: str, mask: bytes, picture_uri: str) -> tuple[int, tuple[int, int]]:
    """(the shorter side, (width, height)) that picture and mask share."""
    sizes = upright_size(mask), upright_size(read_file(picture_uri))
    if sizes[0] != sizes[1]:
        of_mask, of_picture = (f"{width}x{height}" for width, height in sizes)
        raise InputError(
            f"{mask_uri} has {of_mask} pixels, {picture_uri} {of_picture}; make the mask as large"
        )
    return min(sizes[0]), sizes[0]
