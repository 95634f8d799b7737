"""Bytes to pictures and texts: explicit formats, with a cap on the pixels that a header promises.

H height, W width, S the target size.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from dalle2_train.data import limits
from dalle2_train.data.pictures import jpeg
from dalle2_train.data.pictures.formats import FORMATS
from dalle2_train.data.pictures.picture import BrokenImageError, Opened, Picture, Square, centre, render

Crop = Callable[[int, int], Square]
"""(W, H) of the upright picture → the square of it that is wanted."""


def open_image(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture whose header has been read and whose size is bearable; its pixels may still be broken."""
    try:
        with warnings.catch_warnings():
            # What Pillow has to say of odd bytes is of no use here, and our cap on the size is stricter than its own.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=formats)
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise BrokenImageError(f"not a {' or '.join(formats)} picture") from error
    _check_pixels(image.width, image.height)
    if isinstance(image, JpegImageFile):
        image.format = "JPEG"  # of several pictures in one file (MPO) the first is shown
    return image


def verify_image(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The fully decoded picture. BrokenImageError when any part of it cannot be decoded."""
    image = open_image(data, formats)
    if isinstance(image, JpegImageFile):
        jpeg.verify(data)
    _load(image)
    return image


def decode_image(data: bytes, size: int, crop: Crop = centre) -> Picture:
    """A square of a picture as RGB on white, uint8 (S, S, 3). A damaged one: BrokenImageError.

    JPEGs are decoded at the smallest scale that keeps the result within 35 dB of a full decode's.
    """
    found = jpeg.open_jpeg(data) if jpeg.is_jpeg(data) else None
    return _decode_by_pillow(data, size, crop) if found is None else _decode_scaled(found, size, crop)


def _decode_scaled(found: jpeg.Jpeg, size: int, crop: Crop) -> Picture:
    _check_pixels(found.width, found.height)
    orientation = _orientation(open_image(found.data)) if found.may_be_turned else 1
    opened = Opened(found.width, found.height, orientation)
    square = opened.stored(crop(*opened.upright_size))
    eighths = jpeg.eighths(size, square)
    pixels = found.decode(eighths)
    if pixels.shape == (size, size, 3) and square.side == found.width == found.height and orientation == 1:
        return pixels
    return render(Image.fromarray(pixels), eighths / 8, square, size, orientation)


def _decode_by_pillow(data: bytes, size: int, crop: Crop) -> Picture:
    image, scale = open_image(data), 1.0
    if not isinstance(image, JpegImageFile):
        _load(image)  # before its EXIF is asked for, which a PNG may have at its end
    opened = Opened(image.width, image.height, _orientation(image))
    square = opened.stored(crop(*opened.upright_size))
    if isinstance(image, JpegImageFile):
        jpeg.verify(data)  # Pillow reads on over damage
        scale = _draft(image, jpeg.eighths(size, square))
        _load(image)
    return render(image, scale, square, size, opened.orientation)


def _draft(image: JpegImageFile, eighths: int) -> float:
    """Has Pillow decode at the smallest of its scales (1/8, 1/4, 1/2, 1) that is not below; returns it."""
    width = image.width
    least = max(1, min(image.size) * eighths // 8)
    drafted = image.draft("RGB", (least, least))
    return drafted[1][2] / width if drafted is not None else 1.0


def _orientation(image: Image.Image) -> int:
    """As EXIF tells it; a picture whose EXIF cannot be read stays as it is, as in a browser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as above
        return 1


def decode_array(data: bytes, limit: int = limits.MEMBER_BYTES) -> NDArray[Any]:
    """A .npy member, without pickle. ValueError when it is something else."""
    if len(data) > limit:
        raise ValueError(f"an array member of {len(data)} bytes is over the limit of {limit}")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        # NumPy makes room for what the header promises before it looks at what is there.
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
            raise ValueError(f"it promises {shape} of {dtype}")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # the header is Python's, and its parser raises what the bytes lead it to
        raise ValueError(f"not an array ({error})") from error


def decode_text(data: bytes) -> str:
    """Strict UTF-8 that says something. ValueError otherwise."""
    if len(data) > limits.TEXT_BYTES:
        raise ValueError(f"a text of {len(data)} bytes is over the limit of {limits.TEXT_BYTES}")
    text = data.decode("utf-8").strip()
    if not text:
        raise ValueError("the text is empty")
    return text


def decode_record(data: bytes) -> dict[str, Any]:
    """A json member: one object. ValueError otherwise."""
    if len(data) > limits.TEXT_BYTES:
        raise ValueError(f"a json record of {len(data)} bytes is over the limit of {limits.TEXT_BYTES}")
    try:
        found = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("the json record is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("the json record is not an object")
    return found


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=False)
    return stream.getvalue()


def _check_pixels(width: int, height: int) -> None:
    if width * height > limits.MAX_PIXELS:
        raise BrokenImageError(f"{width}x{height} pixels are more than the {limits.MAX_PIXELS} allowed")


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # as above
        raise BrokenImageError(f"its pixels cannot be decoded ({error})") from error
