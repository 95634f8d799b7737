"""A user's picture at the sizes that an unCLIP's parts see, cut to a square as training data are.

S the side of a square, in pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train import storage
from dalle2_train.data.pictures.decode import decode_image
from dalle2_train.data.pictures.picture import BrokenImageError
from dalle2_train.errors import InputError
from dalle2_train.generation.pipeline import upsamplers_of
from dalle2_train.generation.unclip import Unclip


class Picture(NamedTuple):
    """One picture, uint8 (3, S, S) at each size."""

    for_clip: Tensor
    """As CLIP's vision tower sees it."""
    stages: tuple[Tensor, ...]
    """As the decoder makes it, then as each upsampler does."""

    @property
    def small(self) -> Tensor:
        """The decoder's."""
        return self.stages[0]

    @property
    def full(self) -> Tensor:
        """The last stage's."""
        return self.stages[-1]


def open_picture(uri: str, unclip: Unclip) -> Picture:
    """The picture in the file `uri`, of any size and any format that shards may hold. InputError for another file."""
    data = read_file(uri)
    for_clip = decode_square(uri, data, unclip.clip.image_size)
    return Picture(for_clip, tuple(decode_square(uri, data, size) for size in picture_sizes(unclip)))


def picture_sizes(unclip: Unclip) -> list[int]:
    """Pixels a side of what the decoder and each upsampler make."""
    upsamplers = [part.network.config.high_size for part in upsamplers_of(unclip).values()]
    return [unclip.decoder.network.config.image_size, *upsamplers]


def read_file(uri: str) -> bytes:
    """A file's bytes. InputError where there is none."""
    if not storage.exists(uri):
        raise InputError(f"{uri}: there is no such picture; check the path")
    return storage.read_bytes(uri)


def decode_square(uri: str, data: bytes, size: int) -> Tensor:
    """The middle of a picture as uint8 (3, S, S), on white. InputError where `data`, of the file `uri`, is none."""
    try:
        return torch.from_numpy(decode_image(data, size)).permute(2, 0, 1).contiguous()
    except BrokenImageError as error:
        raise InputError(f"{uri}: {error}; give a JPEG, PNG or WebP picture") from error


def to_signal(image: Tensor) -> Tensor:
    """uint8 0 … 255 → float32 in [-1, 1], the inverse of `to_uint8`."""
    return image.float() / 127.5 - 1
