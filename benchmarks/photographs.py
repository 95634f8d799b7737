"""Shards of photographs to measure with: crops of the two that scikit-learn brings, no two of them alike.

They are as large and as finely coded as those that img2dataset writes: 512 pixels, quality 95, 4:2:0.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from importlib import resources
from itertools import islice

import numpy as np
from PIL import Image

from dalle2_train.data.samples.pipeline import pipeline
from dalle2_train.data.shards.writer import Record, finished, write_shards

SIDE = 512
QUALITY = 95
_NAMES = ("china.jpg", "flower.jpg")
_SMALLEST_CROP = 300


def shards(to: str, count: int, samples_per_shard: int) -> str:
    """The set at `to`, made there when it isn't yet."""
    source = {"kind": "photographs", "count": count, "samples_per_shard": samples_per_shard, "version": 1}
    if finished(to, source) is None:
        write_shards(_records(count), to, source, samples_per_shard=samples_per_shard)
    return to


def repeated(to: str, of: str, count: int) -> str:
    """One shard of `count` samples at `to`: the pictures of the set `of`, again and again."""
    source = {"kind": "repeated photographs", "count": count, "version": 1}
    if finished(to, source) is None:
        pictures = jpegs(of)
        records = (_record(pictures[number % len(pictures)], number) for number in range(count))
        write_shards(records, to, source, samples_per_shard=count)
    return to


def jpegs(uri: str, count: int | None = None) -> list[bytes]:
    """The first `count` pictures of a set, as they are stored."""
    return [raw["jpg"] for raw in islice(pipeline(uri), count)]


def _records(count: int) -> Iterator[Record]:
    photographs = [_photograph(name) for name in _NAMES]
    random = np.random.default_rng(0)
    for number in range(count):
        stream = io.BytesIO()
        _crop(photographs[number % len(photographs)], random).save(stream, "JPEG", quality=QUALITY)
        yield _record(stream.getvalue(), number)


def _record(jpeg: bytes, number: int) -> Record:
    return Record(jpeg, "jpg", f"photograph number {number}", {}, SIDE, SIDE)


def _photograph(name: str) -> Image.Image:
    with (
        resources.as_file(resources.files("sklearn.datasets.images") / name) as path,
        Image.open(path) as image,
    ):
        return image.convert("RGB")


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """A square of any size and place, mirrored or not."""
    side = int(random.integers(_SMALLEST_CROP, min(image.size) + 1))
    left, top = (int(random.integers(length - side + 1)) for length in image.size)
    square = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    return square.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.integers(2) else square
