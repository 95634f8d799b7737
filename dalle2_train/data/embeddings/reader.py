"""Rows of an embedded set as arrays: neighbours come in one read of each column.

N rows, L text length, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import encodings_dtype, finite_rows, read_rows, widened
from dalle2_train.data.embeddings.sets import EmbeddingSet
from dalle2_train.errors import InputError

_MERGE_GAP = 1 << 16
_READ_LIMIT = 1 << 26
IMAGE_ALONE = (layout.IMAGE_EMBED,)
WITH_TEXT = (layout.IMAGE_EMBED, layout.TEXT_EMBED, layout.TEXT_ENCODINGS, layout.TEXT_MASK)


class Stored(NamedTuple):
    """N samples among the rows of blocks as they were read, in the files' own precision."""

    whole: NDArray[np.bool_]  # (N,) false where a row is missing or not finite
    at: NDArray[np.intp]  # (N,) the row of each sample
    columns: dict[str, NDArray[Any]]  # name → (rows, …)


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

    def dtype(self, column: str) -> str:
        """What a column's numbers are kept in."""
        dtype = self.embeddings.embeddings.info.dtype
        return encodings_dtype(dtype) if column == layout.TEXT_ENCODINGS else dtype

    def read(self, parts: NDArray[np.integer], rows: NDArray[np.integer]) -> Vectors:
        """The vectors at (part, row), (N,) each, in that order."""
        whole, at, columns = self.read_stored(parts, rows)
        vectors = {name: widened(column[at], self.dtype(name)) for name, column in columns.items()
                   if name != layout.TEXT_MASK}  # fmt: skip
        if layout.TEXT_MASK not in columns:
            return Vectors(whole, vectors[layout.IMAGE_EMBED])
        return Vectors(
            whole,
            vectors[layout.IMAGE_EMBED],
            vectors[layout.TEXT_EMBED],
            vectors[layout.TEXT_ENCODINGS],
            columns[layout.TEXT_MASK][at].astype(bool, copy=False),
        )

    def read_stored(self, parts: NDArray[np.integer], rows: NDArray[np.integer]) -> Stored:
        """The rows at (part, row), (N,) each, among the blocks in which they were read."""
        blocks: dict[str, list[NDArray[Any]]] = {column: [] for column in self.columns}
        whole, at, num_read = np.zeros(len(rows), bool), np.zeros(len(rows), np.intp), 0
        for wanted in self._runs(parts, rows):
            number, first = int(parts[wanted[0]]), int(rows[wanted[0]])
            read = {
                column: self._block(number, column, first, int(rows[wanted[-1]]) + 1) for column in blocks
            }
            count = min(map(len, read.values()))
            for column, block in read.items():
                blocks[column].append(_alike(self.embeddings, number, column, blocks[column], block)[:count])
            there = wanted[rows[wanted] - first < count]
            whole[there], at[there] = True, num_read + rows[there] - first
            num_read += count
        columns = {
            column: found[0] if len(found) == 1 else np.concatenate(found) for column, found in blocks.items()
        }
        if not num_read:
            return Stored(whole, at, {column: np.zeros((1, *found.shape[1:]), found.dtype)
                                      for column, found in columns.items()})  # fmt: skip
        for column in set(columns) & {layout.IMAGE_EMBED, layout.TEXT_EMBED}:
            whole &= finite_rows(columns[column], self.dtype(column))[at]
        return Stored(whole, at, columns)

    def _block(self, number: int, column: str, first: int, stop: int) -> NDArray[Any]:
        return read_rows(
            self.embeddings.uri(number, column), self.embeddings.header(number, column), first, stop
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


def _alike(
    embeddings: EmbeddingSet, number: int, column: str, others: list[NDArray[Any]], block: NDArray[Any]
) -> NDArray[Any]:
    """`block`, whose rows are like those of other parts. Raises InputError where they are not."""
    if others and (block.shape[1:] != others[0].shape[1:] or block.dtype != others[0].dtype):
        raise InputError(f"{embeddings.uri(number, column)}: its rows are {block.shape[1:]} of {block.dtype}, those of "
                         f"other parts {others[0].shape[1:]} of {others[0].dtype}; embed again")  # fmt: skip
    return block
