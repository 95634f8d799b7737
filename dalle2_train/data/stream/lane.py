"""A lane: its way through each source, sample by sample, passing over what is damaged."""

from __future__ import annotations

from collections.abc import Sequence

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.faults import Fault
from dalle2_train.data.stream.order import Order
from dalle2_train.data.stream.source import Source, SourceChunk
from dalle2_train.data.stream.workers import Workers
from dalle2_train.errors import RefusedError

_LEAST_PATIENCE, _MOST_PATIENCE = 100, 10_000


class Track:
    """A lane's way through one source: a cursor, and the chunks that are asked for from there on."""

    def __init__(
        self, lane: int, source: Source, workers: Workers, num_ahead: int, cursor: int = 0, skipped: int = 0
    ) -> None:
        self.source, self.cursor, self.skipped = source, cursor, skipped
        self._lane, self._workers, self._num_ahead = lane, workers, num_ahead
        self._chunks: dict[int, SourceChunk] = {}

    def take(self, faults: list[Fault]) -> Decoded:
        """The next sample that is whole; the faults of those before it are appended to `faults`.

        Raises RefusedError where the lane's part of an epoch, or very much of it, is nothing but damage.
        """
        patience = patience_with(self.source.order)
        for _ in range(patience):
            number, place = divmod(self.cursor, self.source.order.block_size)
            found = self._chunk(number, place)[place]
            self.cursor += 1
            if isinstance(found, Decoded):
                return found
            self.skipped += 1
            faults.append(self.source.named(found))
        raise nothing_but_damage(patience, faults[-1])

    def _chunk(self, number: int, place: int) -> SourceChunk:
        for wanted in range(number, number + 1 + self._num_ahead):
            if wanted not in self._chunks:
                first = place if wanted == number else 0
                self._chunks[wanted] = self.source.chunk(self._lane, wanted, first, self._workers)
        self._chunks.pop(number - 1, None)
        return self._chunks[number]


def patience_with(order: Order) -> int:
    """Samples in a row that may be damaged."""
    return min(max(_LEAST_PATIENCE, order.num_samples // order.num_lanes), _MOST_PATIENCE)


def nothing_but_damage(patience: int, last: Fault) -> RefusedError:
    """What ends a run whose lane has lost its patience."""
    return RefusedError(
        f"{patience} damaged samples in a row, the last of them {last.key} in {last.shard} "
        f"({last.kind}); run `shards check` and repair the set"
    )


class Lane:
    """The lane of this number in the order, with a track for each source."""

    def __init__(self, number: int, tracks: Sequence[Track]) -> None:
        self.number, self.tracks = number, tracks

    @property
    def cursors(self) -> tuple[int, ...]:
        """Samples taken so far, per source, damaged ones included."""
        return tuple(track.cursor for track in self.tracks)

    @property
    def skipped(self) -> tuple[int, ...]:
        """Damaged ones among them."""
        return tuple(track.skipped for track in self.tracks)
