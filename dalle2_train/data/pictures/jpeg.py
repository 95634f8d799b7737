"""JPEG bytes to pixels by libjpeg-turbo, at the smallest of its scales that still covers what is wanted.

The inverse DCT can give a picture in N/8 of its size from the coefficients that this size can show. At 1/8, where a
pixel is a block's mean, little is left to do but the entropy decoding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from dalle2_train.data.pictures.picture import BrokenImageError, Picture, Square

MAX_SCANS = 100
"""Progressive pictures have about ten; each scan costs a pass over all pixels, however few its bytes are."""

_APP1, _START_OF_SCAN = 0xE1, 0xDA
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))
_SPARE = 1.3
_CMYK = ("CMYK", "YCCK")
# How libjpeg calls what it patches with grey, or reads on after. Its other warnings are of odd headers.
_DAMAGE = ("Corrupt JPEG data", "Premature end", "Inconsistent progression")


class Jpeg(NamedTuple):
    """A JPEG whose header has been read, of a kind that libjpeg scales and converts to RGB."""

    data: bytes
    width: int
    height: int
    may_be_turned: bool
    """Whether it has a segment that could hold an orientation (EXIF or XMP)."""

    def decode(self, eighths: int) -> Picture:
        """RGB in `eighths`/8 of its size, uint8 (H, W, 3). Damaged, or cut short by a byte: BrokenImageError."""
        if eighths == 8:
            return _decode(self.data, "RGB", 0, 0)
        width, height = -(-self.width * eighths // 8), -(-self.height * eighths // 8)
        return _decode(self.data, "RGB", width, height)


def eighths(size: int, square: Square) -> int:
    """The smallest scale, in eighths, at which `square` can still become `size` pixels wide.

    Blocks' means that are pixels already are within 35 dB of a full decode and a bicubic resize; where pixels have to
    be made between them, a third more of them is needed for that (seen on photographs of roofs and leaves).
    """
    for scale in (1, 2):
        if scale * square.side == 8 * size and scale * square.left % 8 == scale * square.top % 8 == 0:
            return scale
    return min(8, math.ceil(8 * _SPARE * size / square.side))


def is_jpeg(data: bytes) -> bool:
    """By its first bytes."""
    return data.startswith(b"\xff\xd8\xff")


def open_jpeg(data: bytes) -> Jpeg | None:
    """The header's content; None for a rare kind (CMYK, odd subsampling or layout), which is left to Pillow.

    One that would take long without end: BrokenImageError.
    """
    header = _walk(data)
    if header is None or header.many_scans:
        _check_scans(data)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if header is None or colours in _CMYK:
        return None
    return Jpeg(data, int(width), int(height), header.may_be_turned)


def verify(data: bytes) -> None:
    """BrokenImageError when anything of it is damaged, as far as libjpeg can tell; of odd subsamplings it cannot."""
    _check_scans(data)
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
    except ValueError:
        return
    _decode(data, "CMYK" if colours in _CMYK else "RGB", 1, 1)


def _check_scans(data: bytes) -> None:
    if data.count(bytes([0xFF, _START_OF_SCAN])) > MAX_SCANS:
        raise BrokenImageError(f"it has more than {MAX_SCANS} scans")


class _Header(NamedTuple):
    may_be_turned: bool
    many_scans: bool


def _walk(data: bytes) -> _Header | None:
    """The segments before the first scan; None when they do not follow each other as they should."""
    place, may_be_turned, components, progressive = 2, False, 0, False
    while place + 10 <= len(data):
        prefix, code = data[place], data[place + 1]
        if prefix != 0xFF or code < 0xC0 or code == 0xFF:
            return None
        if code == _START_OF_SCAN:
            return _Header(may_be_turned, progressive or data[place + 4] < components)
        if code in _FRAMES:
            components, progressive = data[place + 9], code in _PROGRESSIVE
        may_be_turned |= code == _APP1
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _decode(data: bytes, colours: str, min_width: int, min_height: int) -> NDArray[np.uint8]:
    """uint8 (H, W, 3), or (H, W, 4) of CMYK."""
    try:
        return simplejpeg.decode_jpeg(data, colours, min_width=min_width, min_height=min_height)
    except ValueError as error:
        if str(error).startswith(_DAMAGE):
            raise BrokenImageError(str(error)) from error
    try:
        return simplejpeg.decode_jpeg(data, colours, min_width=min_width, min_height=min_height, strict=False)
    except ValueError as error:
        raise BrokenImageError(str(error)) from error
