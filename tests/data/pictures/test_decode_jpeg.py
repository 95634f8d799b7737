"""Scaled JPEGs: near the full decode on photographs, and refused when they are damaged."""

import io
import struct
from importlib import resources

import numpy as np
import pytest
from PIL import Image, ImageOps

from dalle2_train.data import limits
from dalle2_train.data.pictures import jpeg
from dalle2_train.data.pictures.decode import decode_image, verify_image
from dalle2_train.data.pictures.picture import BrokenImageError, Square

S420, S444 = 2, 0
ORIENTATION = 0x0112


def photograph(name: str) -> Image.Image:
    """640 x 427 pixels."""
    with (
        resources.as_file(resources.files("sklearn.datasets.images") / name) as path,
        Image.open(path) as image,
    ):
        return image.convert("RGB")


PHOTOGRAPHS = {name: photograph(name) for name in ("china.jpg", "flower.jpg")}


def encoded(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 95, **options})
    return stream.getvalue()


def fully_decoded(data: bytes, size: int, square: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """By Pillow: every pixel, then the centre square (or the box `square`), then the same resize."""
    return by_pillow(Image.open(io.BytesIO(data)).convert("RGB"), size, square)


def by_pillow(image: Image.Image, size: int, square: tuple[int, int, int, int] | None = None) -> np.ndarray:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop(square or (left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def psnr(ours: np.ndarray, theirs: np.ndarray) -> float:
    """dB."""
    return 10 * np.log10(255**2 / max(1e-9, np.square(ours.astype(float) - theirs).mean()))


@pytest.mark.parametrize("subsampling", [S420, S444])
@pytest.mark.parametrize("quality", [75, 95])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
class TestPhotographs:
    """The promise of 35 dB."""

    def test_512_pixels_to_64(self, name: str, quality: int, subsampling: int):
        square = PHOTOGRAPHS[name].crop((100, 0, 527, 427)).resize((512, 512), Image.Resampling.LANCZOS)
        data = encoded(square, quality=quality, subsampling=subsampling)
        assert psnr(decode_image(data, 64), fully_decoded(data, 64)) > 35

    @pytest.mark.parametrize("size", [64, 100, 256, 427, 500])
    def test_the_centre_of_a_wide_one(self, name: str, quality: int, subsampling: int, size: int):
        data = encoded(PHOTOGRAPHS[name], quality=quality, subsampling=subsampling)
        assert psnr(decode_image(data, size), fully_decoded(data, size)) > 35

    def test_any_square(self, name: str, quality: int, subsampling: int):
        data = encoded(PHOTOGRAPHS[name], quality=quality, subsampling=subsampling)
        ours = decode_image(data, 64, lambda width, height: Square(201, 37, 311))
        assert psnr(ours, fully_decoded(data, 64, (201, 37, 512, 348))) > 35

    @pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
    def test_a_turned_one(self, name: str, quality: int, subsampling: int, orientation: int):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        data = encoded(PHOTOGRAPHS[name], quality=quality, subsampling=subsampling, exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        assert psnr(decode_image(data, 64), by_pillow(upright, 64)) > 35


def test_a_photograph_is_decoded_at_the_smallest_scale_that_covers(monkeypatch):
    sizes, decoded = [], jpeg.simplejpeg.decode_jpeg
    monkeypatch.setattr(
        jpeg.simplejpeg,
        "decode_jpeg",
        lambda *a, **k: sizes.append((found := decoded(*a, **k)).shape) or found,
    )
    square = PHOTOGRAPHS["china.jpg"].resize((512, 512))
    for size in (32, 64, 90, 128, 256, 400, 600):
        decode_image(encoded(square), size)
    assert [side for side, _, _ in sizes] == [64, 64, 128, 128, 384, 512, 512]


def test_greys_are_read():
    data = encoded(PHOTOGRAPHS["china.jpg"].convert("L"))
    assert psnr(decode_image(data, 64), fully_decoded(data, 64)) > 35


@pytest.mark.parametrize("size", [64, 427])
def test_cmyk_is_pillows(size: int):
    data = encoded(PHOTOGRAPHS["china.jpg"].convert("CMYK"))
    assert psnr(decode_image(data, size), fully_decoded(data, size)) > 35


def test_several_pictures_in_one_file_are_the_first(tmp_path):
    first, second = PHOTOGRAPHS.values()
    stream = io.BytesIO()
    first.save(stream, "MPO", save_all=True, append_images=[second], quality=95)
    assert psnr(decode_image(stream.getvalue(), 64), fully_decoded(encoded(first), 64)) > 35
    assert verify_image(stream.getvalue()).format == "JPEG"


def segment(code: int, body: bytes) -> bytes:
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


FRAME, SCAN = 0xC0, b"\0\x3f\0"


def flat(factors: list[tuple[int, int]], levels: list[int], extra: bytes = b"", scan: bytes = SCAN) -> bytes:
    """A 48 x 40 JPEG of one colour: the components have these sampling factors and these levels around 128.

    Baseline, written out: of each block only the difference of its DC to the one before, 4 bits for its length.
    """
    number = len(factors)
    frame = struct.pack(">BHHB", 8, 40, 48, number)
    frame += b"".join(bytes([i, across << 4 | down, 0]) for i, (across, down) in enumerate(factors))
    dc = segment(0xC4, bytes([0x00, 0, 1, 0, 11, *[0] * 12, *range(12)]))
    ac = segment(0xC4, bytes([0x10, 1, *[0] * 15, 0]))
    across, down = (max(factor[i] for factor in factors) for i in (0, 1))
    bits = ""
    for mcu in range(-(-48 // (8 * across)) * -(-40 // (8 * down))):
        for factor, level in zip(factors, levels, strict=True):
            for block in range(factor[0] * factor[1]):
                bits += difference(8 * level if mcu == block == 0 else 0) + "0"
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    start = segment(0xDA, bytes([number, *(n for i in range(number) for n in (i, 0))]) + scan)
    quantised = segment(0xDB, b"\0" + b"\1" * 64)
    return b"\xff\xd8" + extra + quantised + segment(FRAME, frame) + dc + ac + start + coded + b"\xff\xd9"


def difference(value: int) -> str:
    length = abs(value).bit_length()
    if not length:
        return "00"
    return f"{0b0100 + length - 1:04b}{value if value > 0 else value + (1 << length) - 1:0{length}b}"


def rgb(luma: int, blue: int, red: int) -> np.ndarray:
    """JFIF's conversion, of levels around 128."""
    y = luma + 128
    return np.array([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue])


@pytest.mark.parametrize("luma", [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("size", [4, 40])
def test_every_subsampling_is_read(luma: tuple[int, int], size: int):
    shown = decode_image(flat([luma, (1, 1), (1, 1)], [50, 12, -25]), size)
    assert np.abs(shown - rgb(50, 12, -25)).max() <= 1


ODD_HEADERS = {
    "unknown JFIF revision": {"extra": segment(0xE0, b"JFIF\0\x09\1\0\0\1\0\1\0\0")},
    "unknown Adobe transform": {"extra": segment(0xEE, b"Adobe\0\x64\0\0\0\0\x09")},
    "progressive parameters": {"scan": b"\0\0\0"},
    "fill bytes": {"extra": b"\xff"},
}


@pytest.mark.parametrize("kind", ODD_HEADERS)
def test_odd_headers_are_no_damage(kind: str):
    data = flat([(2, 2), (1, 1), (1, 1)], [50, 12, -25], **ODD_HEADERS[kind])
    verify_image(data)
    assert np.abs(decode_image(data, 5) - rgb(50, 12, -25)).max() <= 1


def test_adobes_inverted_ycck_is_pillows():
    data = flat([(1, 1)] * 4, [50, 12, -25, 30], extra=segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02"))
    assert np.abs(decode_image(data, 5).astype(int) - fully_decoded(data, 5)).max() <= 1


def cut(data: bytes) -> bytes:
    return data[:-2]


def in_the_middle(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeroed(data: bytes) -> bytes:
    third = len(data) // 3
    return data[:third] + bytes(third) + data[2 * third :]


def ended_early(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


def filled_up(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes(len(data) // 2)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("damage", [cut, in_the_middle, zeroed, ended_early, filled_up])
@pytest.mark.parametrize("size", [64, 427])
def test_damage_is_never_patched_with_grey(mode: str, progressive: bool, turned: bool, damage, size: int):
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    options = {"progressive": progressive, **({"exif": exif} if turned else {})}
    data = encoded(PHOTOGRAPHS["china.jpg"].convert(mode), **options)
    decode_image(data, size)
    with pytest.raises(BrokenImageError):
        decode_image(damage(data), size)
    with pytest.raises(BrokenImageError):
        verify_image(damage(data))


def test_a_bomb_is_refused_by_its_header():
    data = encoded(Image.new("RGB", (16, 16)))
    place = data.index(b"\xff\xc0") + 5
    with pytest.raises(BrokenImageError, match="pixels"):
        decode_image(data[:place] + struct.pack(">HH", 60_000, 60_000) + data[place + 4 :], 8)


@pytest.mark.parametrize("progressive", [False, True])
def test_scans_without_end_are_refused(progressive: bool):
    """Each is a pass over all pixels, for a handful of bytes."""
    data = encoded(Image.new("RGB", (64, 64)), progressive=progressive)
    last = data.rindex(b"\xff\xda")
    if not progressive:
        # A scan of the first of three components promises others.
        data = data[:last] + segment(0xDA, bytes([1, 1, 0]) + SCAN) + b"\0" * 8 + b"\xff\xd9"
    with pytest.raises(BrokenImageError, match="scans"):
        decode_image(data[:-2] + data[last:-2] * jpeg.MAX_SCANS + b"\xff\xd9", 8)
    with pytest.raises(BrokenImageError, match="scans"):
        verify_image(data[:-2] + data[last:-2] * jpeg.MAX_SCANS + b"\xff\xd9")


def test_nothing_but_a_broken_picture_is_ever_raised():
    """Bytes flipped, cut out and put in, in headers above all."""
    random = np.random.default_rng(0)
    image = PHOTOGRAPHS["flower.jpg"].resize((48, 40))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    whole = [encoded(image, exif=exif), encoded(image, progressive=True), encoded(image.convert("CMYK"))]
    for trial in range(1000):
        data = bytearray(whole[trial % len(whole)])
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(data)) * random.random() ** 2)
            data[place : place + random.integers(3)] = random.bytes(random.integers(3))
        try:
            shown = decode_image(bytes(data), 8)
        except BrokenImageError:
            continue
        assert shown.shape == (8, 8, 3) and shown.dtype == np.uint8


def test_the_pixels_are_counted_before_pillow_is_asked(monkeypatch):
    monkeypatch.setattr(limits, "MAX_PIXELS", 48 * 40 - 1)
    for factors in ([(1, 1)] * 3, [(3, 1), (1, 1), (1, 1)]):
        with pytest.raises(BrokenImageError, match="pixels"):
            decode_image(flat(factors, [0, 0, 0]), 8)
