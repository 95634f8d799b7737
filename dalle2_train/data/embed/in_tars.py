"""Embeddings that lie in the tars, a .npy member a vector: rows of columns, as `encoding` makes them of pictures.

N samples, L text length, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.embed.encoding import EmbedConfig, EncodedRows
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import DTYPES, encodings_dtype
from dalle2_train.data.faults import DamagedError, Fault, damage_is
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.members import caption
from dalle2_train.data.shards.reader import RawSample, Reader
from dalle2_train.data.shards.shard_index import Place, faulty_positions
from dalle2_train.data.values import decode_array
from dalle2_train.errors import InputError

MEMBERS = {
    layout.IMAGE_EMBED: "image_embed.npy",
    layout.TEXT_EMBED: "text_embed.npy",
    layout.TEXT_ENCODINGS: "text_encodings.npy",
    layout.TEXT_MASK: "text_mask.npy",
}
"""Column → the member that holds a sample's row: (E,), (E,), (L, E), (L,)."""
_VECTORS = (layout.IMAGE_EMBED, layout.TEXT_EMBED)


def members_of(shards: ShardSet) -> dict[str, NDArray[Any]]:
    """Column → its row, of the first sample that is whole. No embeddings in it: InputError."""
    for number in range(len(shards)):
        faulty = dict(faulty_positions(shards.index(number)))
        for position in range(len(shards.index(number))):
            raw = Reader(shards).read([Place(number, position)])[0]
            if position in faulty or "__error__" in raw:
                continue
            if not all(MEMBERS[column] in raw for column in _VECTORS):
                break
            return {column: decode_array(raw[name]) for column, name in MEMBERS.items() if name in raw}
    raise InputError(f"{shards.home}: its samples hold no {' and '.join(MEMBERS[column] for column in _VECTORS)}; "
                     "make embeddings with `shards embed`")  # fmt: skip


def unpacked(shards: ShardSet, config: EmbedConfig, like: dict[str, NDArray[Any]]) -> Iterator[EncodedRows]:
    """The only shard of a set, batch by batch; every sample must have the members of `like`, as they are there."""
    shard, index, reader = shards.name(0), shards.index(0), Reader(shards)
    known = dict(faulty_positions(index))
    yield EncodedRows([], [], {}, [Fault(shard, index.keys[p], kind) for p, kind in known.items()])
    left = [position for position in range(len(index)) if position not in known]
    for start in range(0, len(left), config.batch_size):
        part = left[start : start + config.batch_size]
        yield _rows(part, reader.read([Place(0, p) for p in part]), shard, config, like)


def _rows(
    positions: list[int],
    raws: list[RawSample],
    shard: str,
    config: EmbedConfig,
    like: dict[str, NDArray[Any]],
) -> EncodedRows:
    found = EncodedRows([], [], {}, [])
    kept: dict[str, list[NDArray[Any]]] = {column: [] for column in like}
    for position, raw in zip(positions, raws, strict=True):
        try:
            text, row = caption(raw), _row(raw, config, like)
        except DamagedError as error:
            found.faults.append(Fault(shard, raw["__key__"], error.kind, str(error)))
            continue
        found.positions.append(position)
        found.captions.append(text)
        for column, values in row.items():
            kept[column].append(values)
    if found.positions:
        found.columns.update({column: np.stack(values) for column, values in kept.items()})
    return found


def _row(raw: RawSample, config: EmbedConfig, like: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    row = {}
    for column, theirs in like.items():
        name = MEMBERS[column]
        if name not in raw:
            raise DamagedError("no_embedding", f"it has no {name}")
        with damage_is("broken_embedding"):
            values = decode_array(raw[name])
            if values.shape != theirs.shape or values.dtype.kind not in "fb" or not np.isfinite(values).all():
                raise ValueError(f"{name} is no finite array of the shape {theirs.shape}")
        row[column] = values.astype(_dtype(column, config))
    return row


def _dtype(column: str, config: EmbedConfig) -> np.dtype[Any]:
    if column == layout.TEXT_MASK:
        return np.dtype(np.bool_)
    return DTYPES[encodings_dtype(config.dtype) if column == layout.TEXT_ENCODINGS else config.dtype]
