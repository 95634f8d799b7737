"""Decoding: Pillow's own pictures back, and nothing that a hostile file promises."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dalle2_train.data.decode import BrokenImageError, decode_array, decode_image, verify_image


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_the_right_size_comes_back_bit_for_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert (decode_image(encoded(Image.fromarray(pixels)), 16) == pixels).all()


def test_the_centre_square_is_taken():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = (10, 200, 30)
    assert (decode_image(encoded(Image.fromarray(wide)), 10) == (10, 200, 30)).all()
    assert (decode_image(encoded(Image.fromarray(wide.transpose(1, 0, 2))), 4) == (10, 200, 30)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_is_white(mode: str):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0)).convert(mode)
    options = {"P": {"transparency": 0}, "RGB": {"transparency": (255, 0, 0)}}.get(mode, {})
    assert (decode_image(encoded(image, **options), 8) == 255).all()


def test_greys_of_16_bits_are_scaled():
    image = Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))
    assert (decode_image(encoded(image), 8) == 0x80).all()


def test_a_scaled_jpeg_is_near_the_full_decode():
    y, x = np.mgrid[0:256, 0:256]
    image = Image.fromarray(np.stack([x, y, (x + y) // 2], 2).astype(np.uint8))
    theirs = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decode_image(encoded(image, "JPEG", quality=95), 32) - theirs).mean() < 2


def test_a_rotated_photograph_stands_upright():
    image = Image.fromarray(np.repeat(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8), 8, 1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    shown = decode_image(encoded(image, "JPEG", exif=exif, quality=100, subsampling=0), 8)
    assert shown[0, 4, 2] > 200 > 60 > shown[0, 4, 0]


def test_a_photograph_with_broken_exif_stays_as_it_is():
    image = Image.new("RGB", (8, 8), (200, 30, 30))
    # With a density in its JFIF header Pillow reads the EXIF only when it is asked to turn the picture.
    data = encoded(image, "JPEG", exif=b"Exif\0\0no header", dpi=(72, 72), quality=100)
    assert (decode_image(data, 8) == decode_image(encoded(image, "JPEG", quality=100), 8)).all()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize("side", [8_000, 12_000, 40_000])
def test_a_picture_bomb_is_refused_by_its_header(side: int):
    with pytest.raises(BrokenImageError):
        decode_image(png_header(side, side), 64)


@pytest.mark.parametrize("data", [b"", b"not a picture", encoded(Image.new("RGB", (8, 8)), "GIF")])
def test_what_is_no_picture_is_refused(data: bytes):
    with pytest.raises(BrokenImageError):
        decode_image(data, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_half_a_picture_is_refused(kind: str):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    verify_image(data)
    with pytest.raises(BrokenImageError):
        verify_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"PK\3\4 broken", b"\x93NUMPY"])
def test_what_is_no_array_is_refused(data: bytes):
    with pytest.raises(ValueError, match="magic"):
        decode_array(data)


def test_an_array_never_runs_code():
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        decode_array(stream.getvalue())
