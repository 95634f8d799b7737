"""Rows of an embedded set as arrays: neighbours come in one read of each column.

N rows, L text length, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import encodings_dtype, read_rows, widened
from dalle2_train.data.embeddings.sets import EmbeddingSet
from dalle2_train.errors import InputError

_MERGE_GAP = 1 << 16
_READ_LIMIT = 1 << 26
IMAGE_ALONE = (layout.IMAGE_EMBED,)
WITH_TEXT = (layout.IMAGE_EMBED, layout.TEXT_EMBED, layout.TEXT_ENCODINGS, layout.TEXT_MASK)

Widen = Callable[[NDArray[Any], str], NDArray[np.float32]]
"""What `columns.widened` does."""


class Vectors(NamedTuple):
    """N rows; what was not asked for is None."""

    whole: NDArray[np.bool_]  # (N,) false where a row is missing or not finite
    image_embed: NDArray[np.float32]  # (N, E)
    text_embed: NDArray[np.float32] | None = None  # (N, E)
    text_encodings: NDArray[np.float32] | None = None  # (N, L, E)
    text_mask: NDArray[np.bool_] | None = None  # (N, L)


class VectorReader:
    """Reads `columns` (IMAGE_ALONE or WITH_TEXT) of an embedded set."""

    def __init__(self, embeddings: EmbeddingSet, columns: tuple[str, ...]) -> None:
        if columns == WITH_TEXT and not embeddings.embeddings.has_text_encodings:
            raise InputError(f"{embeddings.home}: has no text encodings; embed with --text-encodings")
        self.embeddings, self.columns = embeddings, columns

    def read(self, parts: NDArray[np.integer], rows: NDArray[np.integer], widen: Widen = widened) -> Vectors:
        """The vectors at (part, row), (N,) each, in that order."""
        found: dict[str, NDArray[Any]] = {}
        whole = np.ones(len(rows), bool)
        for wanted in self._runs(parts, rows):
            number, first = int(parts[wanted[0]]), int(rows[wanted[0]])
            for column in self.columns:
                header = self.embeddings.header(number, column)
                block = read_rows(
                    self.embeddings.uri(number, column), header, first, int(rows[wanted[-1]]) + 1
                )
                there = rows[wanted] - first < len(block)
                into = found.setdefault(column, np.zeros((len(rows), *header.shape[1:]), header.dtype))
                _check_alike(self.embeddings, number, column, into, block)
                into[wanted[there]] = block[rows[wanted[there]] - first]
                whole[wanted[~there]] = False
        return self._vectors(found, whole, widen)

    def _vectors(self, found: dict[str, NDArray[Any]], whole: NDArray[np.bool_], widen: Widen) -> Vectors:
        dtype = self.embeddings.embeddings.info.dtype
        image_embed = widen(found[layout.IMAGE_EMBED], dtype)
        whole &= np.isfinite(image_embed).all(1)
        if len(self.columns) == 1:
            return Vectors(whole, image_embed)
        text_embed = widen(found[layout.TEXT_EMBED], dtype)
        whole &= np.isfinite(text_embed).all(1)
        text_encodings = widen(found[layout.TEXT_ENCODINGS], encodings_dtype(dtype))
        return Vectors(
            whole, image_embed, text_embed, text_encodings, found[layout.TEXT_MASK].astype(bool, copy=False)
        )

    def _runs(self, parts: NDArray[np.integer], rows: NDArray[np.integer]) -> Iterator[NDArray[np.intp]]:
        """Which of the wanted rows to read together, each run sorted by row."""
        order = np.lexsort((rows, parts))
        row_bytes = max(
            self.embeddings.header(int(parts[order[0]]), column).row_bytes for column in self.columns
        )
        gap, most = 1 + _MERGE_GAP // row_bytes, max(1, _READ_LIMIT // row_bytes)
        apart = (np.diff(parts[order]) != 0) | (np.diff(rows[order]) > gap)
        for run in np.split(order, np.flatnonzero(apart) + 1):
            cuts = np.flatnonzero(np.diff((rows[run] - rows[run[0]]) // most)) + 1
            yield from np.split(run, cuts)


def _check_alike(
    embeddings: EmbeddingSet, number: int, column: str, into: NDArray[Any], block: NDArray[Any]
) -> None:
    if block.shape[1:] != into.shape[1:] or block.dtype != into.dtype:
        raise InputError(f"{embeddings.uri(number, column)}: its rows are {block.shape[1:]} of {block.dtype}, those of "
                         f"other parts {into.shape[1:]} of {into.dtype}; embed again")  # fmt: skip
