"""Bytes to pictures: explicit formats, with a cap on the pixels that a header promises.

H height, W width, S the target size.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

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


def upright_size(data: bytes) -> tuple[int, int]:
    """(W, H) of a picture as it is to be seen, by its header and its EXIF. No picture: BrokenImageError."""
    image = open_image(data)
    return Opened(image.width, image.height, _orientation(image)).upright_size


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
