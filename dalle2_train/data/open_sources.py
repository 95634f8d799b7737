"""Opens what a stream reads: the sources of its mixture, each selected, ordered and ready to be loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dalle2_train import seeding
from dalle2_train.data import embedded
from dalle2_train.data.batches import BatchType
from dalle2_train.data.config import DataConfig
from dalle2_train.data.decode_sample import DecodeSample
from dalle2_train.data.index import open_set
from dalle2_train.data.loader import Loader
from dalle2_train.data.manifest import ShardSet
from dalle2_train.data.mixture import Mixture, SourceConfig
from dalle2_train.data.order import Order
from dalle2_train.data.reader import Reader
from dalle2_train.data.selection import select
from dalle2_train.data.source import SampleCache, Source
from dalle2_train.errors import InputError


def open_sources(
    mixture: Mixture, config: DataConfig, seed: int, batch_type: BatchType, embeddings: str | None
) -> tuple[Source, ...]:
    """The sources of `mixture`, for batches of that type; `embeddings` belongs to a source that names none.

    Raises InputError for a set without the split, for pictures or embeddings that are not there, and for embeddings
    that belong to other shards.
    """
    cache = SampleCache(config.cache_megabytes << 20)
    found = []
    for number, source in enumerate(mixture.sources):
        shards = open_set(source.uri)
        loader = _loader(shards, source, config, batch_type, source.embeddings or embeddings)
        try:
            selection = select(shards, config.split, config.filters)
        except InputError as error:
            raise InputError(f"{source.uri}: {error}") from error
        order = Order(
            len(selection), config.num_lanes, config.block_size, _seed(seed, source.name), config.shuffle
        )
        found.append(Source(number, source.name, shards.manifest.digest, selection, order, loader, cache))
    return tuple(found)


def identity(mixture: Mixture, sources: Sequence[Source], config: DataConfig, seed: int) -> str:
    """Of the data, of what is kept of it, and of all that decides its order."""
    data = [
        (source.name, source.weight, opened.digest, opened.selection.digest)
        for source, opened in zip(mixture.sources, sources, strict=True)
    ]
    parts = (data, config.num_lanes, config.block_size, seed, config.shuffle)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _seed(seed: int, name: str) -> int:
    """Sources of the same size are gone through in different orders; one set alone in the run's own."""
    return seeding.key(seed, f"source {name}") if name else seed


def _loader(
    shards: ShardSet, source: SourceConfig, config: DataConfig, batch_type: BatchType, embeddings: str | None
) -> Loader:
    with_pictures, with_vectors = ("image" in batch_type._fields, "image_embed" in batch_type._fields)
    if with_pictures and shards.manifest.embeddings is not None:
        raise InputError(
            f"{source.uri} holds embeddings and no pictures; give the shards with the pictures as the data"
        )
    vectors = embedded.joined_reader(shards, embeddings or source.uri) if with_vectors else None
    decode = DecodeSample(config.image_size if with_pictures else None, with_vectors, config.transforms)
    return Loader(decode, Reader(shards) if with_pictures else None, vectors)
