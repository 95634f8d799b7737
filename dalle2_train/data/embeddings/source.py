"""Vectors as raw samples at the places of shards: what a loader reads beside pictures, or instead of them.

L text length, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.embeddings.alignment import Alignment, Rows
from dalle2_train.data.embeddings.reader import Stored, VectorReader, Vectors
from dalle2_train.data.faults import DamagedError, Fault
from dalle2_train.data.shards.reader import RawSample
from dalle2_train.data.shards.shard_index import Place

_VECTORS = "__vectors__"
_BROKEN = "its embedding is missing in the file, or not finite"


class _Row(NamedTuple):
    image_embed: NDArray[np.float32]  # (E,)
    text_embed: NDArray[np.float32] | None  # (E,)
    text_encodings: NDArray[np.float32] | None  # (L, E)
    text_mask: NDArray[np.bool_] | None  # (L,)


class Columns(NamedTuple):
    """N samples; `stored.whole` says which of them can be used."""

    rows: Rows
    stored: Stored
    captions: NDArray[np.object_] | None  # (N,) texts


class EmbeddingSource:
    """Reads the embeddings of `alignment`'s shards; with `captions` also theirs, from the metadata."""

    def __init__(self, alignment: Alignment, reader: VectorReader, captions: bool) -> None:
        self.alignment, self.reader, self.captions = alignment, reader, captions

    def read(self, wanted: list[Place]) -> list[RawSample]:
        """A sample each, in that order; one whose row is missing or not finite has no vectors."""
        if not wanted:
            return []
        shards, positions = np.array(wanted, dtype=np.int64).T
        rows = self.alignment.rows(shards, positions)
        vectors, texts = self.reader.read(*rows), self._captions(rows)
        embeddings = self.alignment.embeddings
        told = {
            part: (embeddings.index(part).keys, embeddings.uri(part)) for part in set(rows.parts.tolist())
        }
        found: list[RawSample] = []
        places = zip(rows.parts.tolist(), rows.rows.tolist(), strict=True)
        for (part, row), vector, text in zip(places, _rows(vectors), texts, strict=False):
            keys, uri = told[part]
            sample: RawSample = {"__key__": keys[row], "__url__": uri, _VECTORS: vector}
            if text is not None:
                sample["txt"] = text
            found.append(sample)
        return found

    def read_columns(self, shards: NDArray[np.int64], positions: NDArray[np.int64]) -> Columns:
        """The samples at (shard, position), (N,) each, in that order."""
        rows = self.alignment.rows(shards, positions)
        stored = self.reader.read_stored(*rows)
        if not self.captions:
            return Columns(rows, stored, None)
        texts = np.array([text.strip() for text in self._texts(rows)], object)
        return Columns(rows, stored._replace(whole=stored.whole & (texts != "")), texts)

    def fault(self, columns: Columns, place: int) -> Fault:
        """What is wrong with a sample that is not whole."""
        embeddings, part = self.alignment.embeddings, int(columns.rows.parts[place])
        shard = embeddings.name(part)
        key = embeddings.index(part).keys[columns.rows.rows[place]]
        if columns.captions is not None and not columns.captions[place]:
            return Fault(shard, key, "broken_caption", "the text is empty")
        return Fault(shard, key, "broken_embedding", _BROKEN)

    def _captions(self, rows: Rows) -> Iterator[bytes | None]:
        if not self.captions:
            return repeat(None)
        return (text.encode() for text in self._texts(rows))

    def _texts(self, rows: Rows) -> NDArray[np.object_]:
        texts = np.empty(len(rows.rows), object)
        for part in np.unique(rows.parts):
            of_part = rows.parts == part
            texts[of_part] = self.alignment.embeddings.captions(int(part), rows.rows[of_part])
        return texts


def _rows(vectors: Vectors) -> Iterator[_Row | None]:
    count = len(vectors.whole)
    columns = (column if column is not None else [None] * count for column in vectors[1:])
    for whole, *row in zip(vectors.whole.tolist(), *columns, strict=True):
        yield _Row(*row) if whole else None


def add_vectors(sample: Decoded, raw: RawSample) -> None:
    """Gives `sample` the vectors of its raw one. DamagedError where it has none."""
    row: _Row | None = raw[_VECTORS]
    if row is None:
        raise DamagedError("broken_embedding", _BROKEN)
    sample.image_embed, sample.text_embed, sample.text_encodings, sample.text_mask = row
