"""Decoding: Pillow's own pictures back, and nothing that a hostile file promises."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dalle2_train.data.pictures.decode import decode_image, verify_image
from dalle2_train.data.pictures.picture import BrokenImageError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (21, 34, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def by_pillow(image: Image.Image, size: int) -> np.ndarray:
    """The centre square as Pillow crops and resizes it."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_right_size_comes_back_bit_for_bit(kind: str):
    pixels = RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert (decode_image(encoded(Image.fromarray(pixels), kind, **options), 16) == pixels).all()


@pytest.mark.parametrize("size", [8, 21, 40])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_not_scaled_is_pillows_crop_and_resize_bit_for_bit(size: int, turned: bool):
    image = Image.fromarray(NOISE.transpose(1, 0, 2) if turned else NOISE)
    assert (decode_image(encoded(image), size) == by_pillow(image, size)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_is_white(mode: str):
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0)).convert(mode)
    options = {"P": {"transparency": 0}, "RGB": {"transparency": (255, 0, 0)}}.get(mode, {})
    assert (decode_image(encoded(image, **options), 8) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_half_transparent_is_mixed_with_white(kind: str):
    pixels = RNG.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    shown = decode_image(encoded(Image.fromarray(pixels), kind, **options), 16)
    colour, alpha = pixels[..., :3].astype(float), pixels[..., 3:] / 255
    assert np.abs(shown - (colour * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours_are_pillows(mode: str):
    image = Image.fromarray(NOISE).convert(mode)
    assert (decode_image(encoded(image), 8) == by_pillow(image.convert("RGB"), 8)).all()


def test_greys_of_16_bits_are_scaled():
    pixels = RNG.integers(0, 1 << 16, (8, 8), dtype=np.uint16)
    assert (decode_image(encoded(Image.fromarray(pixels)), 8) == (pixels >> 8)[..., None]).all()


def test_colours_of_16_bits_are_scaled():
    pixels = RNG.integers(0, 1 << 16, (8, 8, 3), dtype=np.uint16)
    assert (decode_image(png(8, 8, pixels.astype(">u2").tobytes(), 16), 8) == pixels >> 8).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_a_film_is_taken(kind: str):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    assert (decode_image(data, 8) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_turned_picture_stands_upright(kind: str, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "PNG": {}}[kind]
    data = encoded(Image.fromarray(NOISE), kind, exif=exif, **options)
    theirs = by_pillow(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), 21).astype(int)
    assert np.abs(decode_image(data, 21) - theirs).max() <= 2


def test_a_picture_whose_exif_is_broken_stays_as_it_is():
    image = Image.new("RGB", (8, 8), (200, 30, 30))
    # With a density in its JFIF header Pillow reads the EXIF only when it is asked to turn the picture.
    data = encoded(image, "JPEG", exif=b"Exif\0\0no header", dpi=(72, 72), quality=100)
    assert (decode_image(data, 8) == decode_image(encoded(image, "JPEG", quality=100), 8)).all()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, samples: bytes, bits: int = 8, extra: bytes = b"") -> bytes:
    """An RGB picture; `extra` stands between header and pixels."""
    length = 3 * width * bits // 8
    rows = b"".join(b"\0" + samples[i : i + length] for i in range(0, len(samples), length))
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    end = chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + end


@pytest.mark.parametrize("side", [8_000, 12_000, 40_000])
def test_a_picture_bomb_is_refused_by_its_header(side: int):
    with pytest.raises(BrokenImageError, match=r"pixels|not a"):
        decode_image(png(side, side, b""), 64)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_a_bomb_beside_the_pixels_is_refused(kind: bytes):
    packed = zlib.compress(bytes(1 << 28), 9)
    with pytest.raises(BrokenImageError):
        decode_image(png(8, 8, bytes(192), extra=chunk(kind, b"name\0\0" + packed)), 8)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "EPS"])
def test_formats_that_are_not_allowed_are_refused(kind: str):
    with pytest.raises(BrokenImageError, match="not a"):
        decode_image(encoded(Image.new("RGB", (16, 16)), kind), 8)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0"])
def test_what_is_no_picture_is_refused(data: bytes):
    with pytest.raises(BrokenImageError):
        decode_image(data, 8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("read", [verify_image, lambda data: decode_image(data, 8)])
def test_a_part_of_a_picture_is_refused(kind: str, read):
    data = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), kind)
    read(data)
    for part in (0.1, 0.5, 0.9):
        with pytest.raises(BrokenImageError):
            read(data[: int(len(data) * part)])
