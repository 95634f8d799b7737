"""Bytes to pictures and texts: explicit formats, with a cap on the pixels that a header promises.

H height, W width, S the target size.
"""

from __future__ import annotations

import io
import json
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dalle2_train.data import limits

FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_EXTENSIONS = ("png", "jpg", "jpeg", "webp")

Picture = NDArray[np.uint8]


class BrokenImageError(ValueError):
    """The bytes are no picture that we read; the message says why."""


def open_image(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """A picture whose header has been read and whose size is bearable; its pixels may still be broken."""
    try:
        with warnings.catch_warnings():
            # Our own cap below is stricter than Pillow's warning.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=formats)
    except Exception as error:  # Pillow's parsers raise whatever the bytes lead them to
        raise BrokenImageError(f"not a {' or '.join(formats)} picture") from error
    if image.width * image.height > limits.MAX_PIXELS:
        raise BrokenImageError(
            f"{image.width}x{image.height} pixels are more than the {limits.MAX_PIXELS} allowed"
        )
    return image


def verify_image(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The fully decoded picture. BrokenImageError when any part of it cannot be decoded."""
    image = open_image(data, formats)
    _load(image)
    return image


def decode_image(data: bytes, size: int) -> Picture:
    """The centre square of a picture as RGB on white, uint8 (S, S, 3)."""
    image = open_image(data)
    if image.format == "JPEG":
        image.draft("RGB", (size, size))  # libjpeg then decodes at the smallest scale that still covers S
    _load(image)
    return square(flatten(upright(image)), size)


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF says; one whose EXIF cannot be read stays as it is, as in a browser."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's parsers raise whatever the bytes lead them to
        return image


def flatten(image: Image.Image) -> Image.Image:
    """The picture as RGB; what is transparent becomes white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # Pillow would clip 16 bit greys instead of scaling them.
        return Image.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        image = white
    return image.convert("RGB")


def square(image: Image.Image, size: int) -> Picture:
    """The centre square, resized with antialiasing, uint8 (S, S, 3)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.size != (size, size):
        # Cropped first: resizing a box would mix in what lies outside of it.
        image = image.crop((left, top, left + side, top + side)).resize(
            (size, size), Image.Resampling.BICUBIC
        )
    return np.array(image, dtype=np.uint8)


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


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # as above
        raise BrokenImageError(f"its pixels cannot be decoded ({error})") from error
