"""One set in its order: which samples a lane's chunk holds, read by workers, and kept while memory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dalle2_train import seeding
from dalle2_train.data.decoded import Decoded
from dalle2_train.data.faults import Fault
from dalle2_train.data.samples.loader import Loader, Wanted
from dalle2_train.data.selection.selection import Selection
from dalle2_train.data.stream.order import Order
from dalle2_train.data.stream.workers import Chunk, Workers


class SampleCache:
    """Decoded samples by (source, number), until the room is used up; what is in it stays."""

    def __init__(self, num_bytes: int) -> None:
        self._room = num_bytes
        self._kept: dict[tuple[int, int], Decoded] = {}

    def get(self, source: int, number: int) -> Decoded | None:
        """The sample, if it is kept."""
        return self._kept.get((source, number))

    def keep(self, source: int, number: int, sample: Decoded) -> None:
        """Keep it, if there is room left."""
        if sample.nbytes <= self._room:
            self._room -= sample.nbytes
            self._kept[source, number] = sample


@dataclass(frozen=True)
class Source:
    """The source of a stream that has this `number` there."""

    number: int
    name: str
    """Empty where it is the only one."""
    digest: str
    selection: Selection
    order: Order
    loader: Loader
    cache: SampleCache

    def chunk(self, lane: int, number: int, first: int, workers: Workers) -> SourceChunk:
        """Ask for the lane's `number`-th chunk, from its `first` place on."""
        return SourceChunk(self, lane, number, first, workers)

    def named(self, fault: Fault) -> Fault:
        """`fault` with the source's name: shards of several sources may have the same."""
        return replace(fault, shard=f"{self.name}/{fault.shard}") if self.name else fault

    def key(self, lane: int, cursor: int) -> int:
        """Of what is drawn for the sample that the lane meets at `cursor`."""
        return seeding.key(self.order.seed, "sample", lane, cursor)


class SourceChunk:
    """The samples of one chunk by their places in it; those that are kept decoded are not asked for again."""

    def __init__(self, source: Source, lane: int, number: int, first: int, workers: Workers) -> None:
        self.source = source
        self._ids: list[int] = source.order.chunk(lane, number).tolist()
        self._positions: dict[int, int] = {}
        wanted = self._wanted(range(first, len(self._ids)), lane, number * len(self._ids))
        self._chunk: Chunk | Sequence[Decoded] = workers.load(source.number, wanted) if wanted else ()

    def _wanted(self, places: range, lane: int, cursor: int) -> list[Wanted]:
        missing: list[int] = []
        for place in places:
            tag = self._tag(place)
            if tag not in self._positions and self._kept(place) is None:
                self._positions[tag] = len(missing)
                missing.append(place)
        where = self.source.selection.places([self._ids[place] for place in missing])
        if not self.source.loader.decode.draws:  # whatever the key
            return [Wanted(found, 0) for found in where]
        pairs = zip(where, missing, strict=True)
        return [Wanted(found, self.source.key(lane, cursor + place)) for found, place in pairs]

    def _tag(self, place: int) -> int:
        """What is decoded once: a sample, or, where something is drawn for it, each time that it comes."""
        return place if self.source.loader.decode.draws else self._ids[place]

    def _kept(self, place: int) -> Decoded | None:
        return self.source.cache.get(self.source.number, self._ids[place])

    def __getitem__(self, place: int) -> Decoded | Fault:
        if (kept := self._kept(place)) is not None:
            return kept
        found = self._chunk[self._positions[self._tag(place)]]
        if isinstance(found, Decoded) and not self.source.loader.decode.draws:
            self.source.cache.keep(self.source.number, self._ids[place], found)
        return found
