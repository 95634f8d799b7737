"""Embeddings beside shards: the layout of their members, and the join that is verified by key.

E embedding, L text length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.decode import decode_array
from dalle2_train.data.decoded import Decoded
from dalle2_train.data.index import open_set
from dalle2_train.data.manifest import EmbeddingInfo, ShardSet
from dalle2_train.data.reader import RawSample, Reader
from dalle2_train.errors import InputError, RefusedError

IMAGE_EMBED, TEXT_EMBED = "image_embed.npy", "text_embed.npy"
TEXT_ENCODINGS, TEXT_MASK = "text_encodings.npy", "text_mask.npy"
COVARIANCE = "covariance.npy"


def joined_reader(shards: ShardSet, embeddings: str) -> Reader:
    """A reader of the set `embeddings` whose places are those of `shards`. Sets that don't match: InputError."""
    found = open_set(embeddings)
    if found.home == shards.home:
        found = shards
    info = found.manifest.embeddings
    if info is None:
        raise InputError(
            f"{embeddings}: holds no embeddings; run `shards embed {shards.home} --clip MODEL --to URI` first"
        )
    if not info.text_encodings:
        raise InputError(f"{embeddings}: was made without text encodings; embed again with them")
    if found is not shards:
        _verify(shards, found, info)
    return Reader(found)


def read_covariance(embeddings: str, info: EmbeddingInfo) -> NDArray[np.float64]:
    """(E, E) float64: that of the train split's image embeddings in the set `embeddings`.

    Raises InputError where the set was made without it, RefusedError where the file is damaged.
    """
    uri = storage.join(embeddings, COVARIANCE)
    if info.covariance_sha256 is None or not storage.exists(uri):
        raise InputError(f"{embeddings}: has no {COVARIANCE}; run `shards embed` again")
    data = storage.read_bytes(uri)
    if storage.sha256_bytes(data) != info.covariance_sha256:
        raise RefusedError(f"{uri}: damaged; run `shards embed` again")
    return decode_array(data, limit=len(data))


def _verify(shards: ShardSet, found: ShardSet, info: EmbeddingInfo) -> None:
    where, remedy = found.home, f"embed {shards.home} again"
    if [shard.name for shard in found.manifest.shards] != [shard.name for shard in shards.manifest.shards]:
        raise InputError(f"{where}: has other shards than {shards.home}; {remedy}")
    for number, shard in enumerate(shards.manifest.shards):
        ours, theirs = shards.index(number), found.index(number)
        if ours.keys != theirs.keys:
            pairs = zip(ours.keys, theirs.keys, strict=False)
            odd = next((f"{a} and {b}" for a, b in pairs if a != b), "the number of samples")
            raise InputError(
                f"{where}: {shard.name} is misaligned with {shards.home}: {odd} differ; {remedy}"
            )
        if ours.splits != theirs.splits or info.source.get(shard.name) != shard.sha256:
            raise InputError(
                f"{where}: {shard.name} was made from another {shard.name} than {shards.home} has; {remedy}"
            )


def add_vectors(sample: Decoded, raw: RawSample) -> None:
    """Fills the embeddings of `sample` from its members. Members that are missing or misshaped: ValueError."""
    sample.image_embed = vector(raw, IMAGE_EMBED)
    sample.text_embed = vector(raw, TEXT_EMBED)
    encodings = _array(raw, TEXT_ENCODINGS)  # (L, E)
    mask = _array(raw, TEXT_MASK)  # (L,)
    if encodings.ndim != 2 or encodings.shape[0] != mask.shape[0] or mask.ndim != 1:
        raise ValueError(f"text encodings {encodings.shape} and mask {mask.shape} don't fit")
    sample.text_encodings, sample.text_mask = encodings, mask.astype(np.bool_)


def vector(raw: RawSample, name: str) -> NDArray[np.float32]:
    """(E,) the member `name`. ValueError for one that is missing, of another shape or not finite."""
    found = _array(raw, name)
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"{name} is not a finite vector")
    return found.astype(np.float32)


def _array(raw: RawSample, name: str) -> NDArray[Any]:
    if name not in raw:
        raise ValueError(f"it has no {name}")
    return decode_array(raw[name])
