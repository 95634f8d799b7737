"""Opens what a stream reads: the sources of its mixture, each selected, ordered and ready to be loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dalle2_train import seeding
from dalle2_train.data.config import DataConfig
from dalle2_train.data.embeddings.joined import join_embeddings
from dalle2_train.data.embeddings.sets import EmbeddingSet, open_data
from dalle2_train.data.samples.decode_sample import DecodeSample
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.samples.loader import Loader
from dalle2_train.data.samples.transforms import Transforms
from dalle2_train.data.selection.selection import Selection, select
from dalle2_train.data.shards.cache import open_cache
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.reader import Reader
from dalle2_train.data.stream.batches import BatchType
from dalle2_train.data.stream.mixture import Mixture, SourceConfig
from dalle2_train.data.stream.order import Order
from dalle2_train.data.stream.source import SampleCache, Source
from dalle2_train.errors import InputError


def open_sources(
    mixture: Mixture,
    config: DataConfig,
    seed: int,
    batch_type: BatchType,
    embeddings: str | None,
    degradation: Degradation | None = None,
) -> tuple[Source, ...]:
    """The sources of `mixture`, for batches of that type; `embeddings` belongs to a source that names none.

    Raises InputError for a set without the split, for pictures or embeddings that are not there, for embeddings
    that belong to other shards, and for settings of what such batches do not hold.
    """
    _check_settings(config, batch_type)
    cache = SampleCache(config.cache_megabytes << 20)
    found = []
    for number, source in enumerate(mixture.sources):
        shards = open_data(source.uri)
        _check_pictures(source, shards, batch_type)
        try:
            selection = select(shards, config.split, config.filters)
        except InputError as error:
            raise InputError(f"{source.uri}: {error}") from error
        if degradation is not None:
            loader = _degraded(shards, config, degradation)
        else:
            selection, loader = _loader(
                shards, selection, config, batch_type, source.embeddings or embeddings or source.uri
            )
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


def _check_settings(config: DataConfig, batch_type: BatchType) -> None:
    """Nothing is set for pictures, or for captions, where none are read."""
    of_pictures = ("crop", "min_crop_fraction", "flip", "cache_folder")
    unread = {name: "pictures" for name in of_pictures if "image" not in batch_type._fields}
    if "text_mask" not in batch_type._fields:
        unread["captions"] = "captions"
    plain = DataConfig()
    for name, what in unread.items():
        value, default = getattr(config, name), getattr(plain, name)
        if value != default:
            raise InputError(
                f"data.{name} is {value!r}, but this training reads no {what}; leave it at {default!r}"
            )


def _check_pictures(source: SourceConfig, shards: ShardSet, batch_type: BatchType) -> None:
    if "image" in batch_type._fields and isinstance(shards, EmbeddingSet):
        raise InputError(
            f"{source.uri} holds embeddings and no pictures; give the shards with the pictures as the data"
        )


def _degraded(shards: ShardSet, config: DataConfig, degradation: Degradation) -> Loader:
    """Pictures alone, each with what `degradation` leaves of it."""
    cache = open_cache(config.cache_folder, config.cache_gigabytes)
    decode = DecodeSample(
        config.image_size, False, config.transforms, degradation=degradation, captions=False
    )
    return Loader(decode, Reader(shards, cache))


def _loader(
    shards: ShardSet, selection: Selection, config: DataConfig, batch_type: BatchType, embeddings: str
) -> tuple[Selection, Loader]:
    """(those of the selected samples that there is everything of, how they are loaded)."""
    fields = batch_type._fields
    cache = open_cache(config.cache_folder, config.cache_gigabytes)
    pictures = Reader(shards, cache) if "image" in fields else None
    image_size = config.image_size if pictures is not None else None
    captions = "token_ids" in fields
    if "image_embed" not in fields:
        return selection, Loader(
            DecodeSample(image_size, False, config.transforms, captions=captions), pictures
        )
    if config.captions != "txt" and (pictures is None or not captions):
        raise InputError(f"data.captions is {config.captions!r}, but the embeddings' text is that of txt; set it to "
                         "txt, or give shards, and embeddings without text encodings")  # fmt: skip
    selection, vectors = join_embeddings(
        shards,
        selection,
        embeddings,
        text_encodings="text_encodings" in fields,
        captions=captions and pictures is None,
    )
    transforms = config.transforms if pictures is not None else Transforms()
    decode = DecodeSample(image_size, True, transforms, captions or pictures is not None)
    return selection, Loader(decode, pictures, vectors)
