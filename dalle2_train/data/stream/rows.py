"""Batches of vectors alone, gathered column by column: the samples that `lane` would take one by one, many at once.

B a rank's samples of a batch, L lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import BF16
from dalle2_train.data.embeddings.source import Columns, EmbeddingSource
from dalle2_train.data.faults import Fault
from dalle2_train.data.stream.batches import Batch, BatchType, Tokenize
from dalle2_train.data.stream.lane import nothing_but_damage, patience_with
from dalle2_train.data.stream.source import Source

_COLUMNS = {
    "image_embed": layout.IMAGE_EMBED,
    "text_embed": layout.TEXT_EMBED,
    "text_encodings": layout.TEXT_ENCODINGS,
    "text_mask": layout.TEXT_MASK,
}


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
            whole = chunk.stored.whole[place:]
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
            self._chunk = self._vectors.read_columns(*self.source.selection.located(ids))
        return self._chunk

    def _fault(self, chunk: Columns, place: int) -> Fault:
        return self.source.named(self._vectors.fault(chunk, place))


def gather(
    batch_type: BatchType,
    index: NDArray[np.int64],
    lanes: Sequence[list[Piece]],
    dtype: Callable[[str], str],
    tokenize: Tokenize | None,
) -> Batch:
    """The batch of the pieces of every lane, whose samples come in turn; `index` (B,) are their global numbers.

    dtype: of a column's numbers, as `VectorReader.dtype`.
    """
    columns = {"index": torch.from_numpy(index)}
    for name, column in _COLUMNS.items():
        if name in batch_type._fields and column in lanes[0][0].chunk.stored.columns:
            found = _by_lane([[(chunk.stored.columns[column], chunk.stored.at[places]) for chunk, places in pieces]
                              for pieces in lanes])  # fmt: skip
            columns[name] = _in_turn(_tensor(found, column, dtype(column)))
    if "token_ids" in batch_type._fields:
        assert tokenize is not None
        texts = _by_lane([[(_there(chunk), places) for chunk, places in pieces] for pieces in lanes])
        columns["token_ids"], columns["text_mask"] = tokenize(texts.T.reshape(-1).tolist())
    return batch_type(**columns)


def _by_lane(lanes: Sequence[list[tuple[NDArray, NDArray[np.intp]]]]) -> NDArray:
    """(L, B / L, …) the rows of L lanes."""
    like = lanes[0][0][0]
    found = np.empty((len(lanes), sum(len(at) for _, at in lanes[0]), *like.shape[1:]), like.dtype)
    for lane, pieces in enumerate(lanes):
        turn = 0
        for column, at in pieces:
            # "clip": whatever else would first copy the rows aside; all of `at` lie within.
            np.take(column, at, axis=0, out=found[lane, turn : turn + len(at)], mode="clip")
            turn += len(at)
    return found


def _tensor(found: NDArray, column: str, dtype: str) -> Tensor:
    """The numbers in their own precision, which torch widens in a twentieth of NumPy's time."""
    if column == layout.TEXT_MASK:
        return torch.from_numpy(found.astype(bool, copy=False))
    return (
        torch.from_numpy(found.view(np.int16)).view(torch.bfloat16)
        if dtype == BF16
        else torch.from_numpy(found)
    )


def _in_turn(found: Tensor) -> Tensor:
    """(L, B / L, …) → (B, …), a sample of each lane in turn; numbers as float32."""
    num_lanes, turns, *rest = found.shape
    dtype = torch.float32 if found.is_floating_point() else found.dtype
    return torch.empty((turns, num_lanes, *rest), dtype=dtype).copy_(found.transpose(0, 1)).flatten(0, 1)


def _there(chunk: Columns) -> NDArray[np.object_]:
    assert chunk.captions is not None, "the source of a batch of tokens reads captions"
    return chunk.captions
