"""Raw samples to decoded ones, outside of training: what evaluation and previews look at.

S the picture's side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dalle2_train.data.pictures.decode import decode_image
from dalle2_train.data.pictures.picture import Picture
from dalle2_train.data.samples.pipeline import pipeline
from dalle2_train.data.shards.index import load_or_index
from dalle2_train.data.shards.members import caption, image_bytes
from dalle2_train.data.values import decode_record
from dalle2_train.errors import InputError


class Sample(NamedTuple):
    """A decoded picture with its caption and its json record; `image` is uint8 (S, S, 3)."""

    key: str
    caption: str
    image: Picture
    meta: dict[str, Any]


def splits_of(uri: str) -> dict[str, int]:
    """Split → number of its samples."""
    return load_or_index(uri).count()


def collect(uri: str, split: str, image_size: int, limit: int | None = None) -> list[Sample]:
    """The first `limit` samples of a split, for evaluation. A damaged one: InputError."""
    found: list[Sample] = []
    for raw in pipeline(uri, split):
        if limit is not None and len(found) >= limit:
            break
        try:
            image = decode_image(image_bytes(raw), image_size)
            found.append(Sample(raw["__key__"], caption(raw), image, decode_record(raw.get("json", b"{}"))))
        except ValueError as error:
            where = f"{raw['__url__']}: sample {raw['__key__']}"
            raise InputError(f"{where}: {error}; run `shards check` and repair the set") from error
    return found
