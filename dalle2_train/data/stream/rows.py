"""Batches of vectors alone, gathered column by column: the samples that `lane` would take one by one, many at once.

B a rank's samples of a batch, L lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dalle2_train.data.embeddings.columns import FP16, widened
from dalle2_train.data.embeddings.source import Columns, EmbeddingSource
from dalle2_train.data.faults import Fault
from dalle2_train.data.stream.batches import Batch, BatchType, Tokenize
from dalle2_train.data.stream.lane import nothing_but_damage, patience_with
from dalle2_train.data.stream.source import Source


class Piece(NamedTuple):
    """Some samples of a chunk."""

    chunk: Columns
    places: NDArray[np.intp]


class RowTrack:
    """A lane's way through a source of vectors alone: a cursor, and the chunk that it stands in."""

    def __init__(
        self, lane: int, source: Source, vectors: EmbeddingSource, cursor: int = 0, skipped: int = 0
    ) -> None:
        self.source, self.cursor, self.skipped = source, cursor, skipped
        self._lane, self._vectors = lane, vectors
        self._number = -1
        self._chunk: Columns | None = None

    def take(self, count: int, faults: list[Fault]) -> list[Piece]:
        """The next `count` samples that are whole; the faults of those between them are appended to `faults`.

        Raises RefusedError as `Track.take`.
        """
        pieces: list[Piece] = []
        in_a_row, patience = 0, patience_with(self.source.order)
        while count:
            number, place = divmod(self.cursor, self.source.order.block_size)
            chunk = self._read(number)
            whole = chunk.vectors.whole[place:]
            found = np.flatnonzero(whole)[:count]
            seen = int(found[-1]) + 1 if len(found) == count else len(whole)
            for broken in np.flatnonzero(~whole[:seen]) + place:
                faults.append(self._fault(chunk, int(broken)))
            self.cursor, self.skipped = self.cursor + seen, self.skipped + seen - len(found)
            in_a_row = 0 if len(found) else in_a_row + seen
            if in_a_row >= patience:
                raise nothing_but_damage(in_a_row, faults[-1])
            pieces.append(Piece(chunk, found + place))
            count -= len(found)
        return pieces

    def _read(self, number: int) -> Columns:
        if self._chunk is None or number != self._number:
            ids = self.source.order.chunk(self._lane, number)
            self._number = number
            self._chunk = self._vectors.read_columns(*self.source.selection.located(ids), widen=_widened)
        return self._chunk

    def _fault(self, chunk: Columns, place: int) -> Fault:
        return self.source.named(self._vectors.fault(chunk, place))


def _widened(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The same numbers as NumPy's, which takes twenty times as long for half precision."""
    if dtype == FP16:
        return torch.from_numpy(stored).float().numpy()
    return widened(stored, dtype)


def gather(
    batch_type: BatchType, index: NDArray[np.int64], lanes: Sequence[list[Piece]], tokenize: Tokenize | None
) -> Batch:
    """The batch of the pieces of every lane, whose samples come in turn; `index` (B,) are their global numbers."""
    columns = {"index": torch.from_numpy(index)}
    for name in ("image_embed", "text_embed", "text_encodings", "text_mask"):
        if name in batch_type._fields and getattr(lanes[0][0].chunk.vectors, name) is not None:
            parts = [[(getattr(chunk.vectors, name), places) for chunk, places in pieces] for pieces in lanes]
            columns[name] = torch.from_numpy(_in_turn(parts))
    if "token_ids" in batch_type._fields:
        assert tokenize is not None
        texts = [[(_there(chunk), places) for chunk, places in pieces] for pieces in lanes]
        columns["token_ids"], columns["text_mask"] = tokenize(_in_turn(texts).tolist())
    return batch_type(**columns)


def _in_turn(lanes: Sequence[list[tuple[NDArray, NDArray[np.intp]]]]) -> NDArray:
    """(B, …) the samples of L lanes of B / L each."""
    like = lanes[0][0][0]
    turns = sum(len(places) for _, places in lanes[0])
    found = np.empty((turns, len(lanes), *like.shape[1:]), like.dtype)
    for lane, pieces in enumerate(lanes):
        turn = 0
        for column, places in pieces:
            found[turn : turn + len(places), lane] = column[places]
            turn += len(places)
    return found.reshape(turns * len(lanes), *like.shape[1:])


def _there(chunk: Columns) -> NDArray[np.object_]:
    assert chunk.captions is not None, "the source of a batch of tokens reads captions"
    return chunk.captions
