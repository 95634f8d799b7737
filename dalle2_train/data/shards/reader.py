"""Shards to raw samples: ranges of neighbours in one read, every sample checked against the manifest.

A raw sample is webdataset's: {"__key__", "__url__", extension: bytes…}, so that its stages compose with ours.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from dalle2_train import storage
from dalle2_train.data.shards.cache import PageCache
from dalle2_train.data.shards.manifest import ShardSet
from dalle2_train.data.shards.shard_index import Place, ShardIndex
from dalle2_train.data.shards.tarspan import members

RawSample = dict[str, Any]
_MERGE_GAP = 1 << 16
_READ_LIMIT = 1 << 26


class Reader:
    """Reads the samples of one set; a damaged one has an "__error__" instead of members.

    Permanent faults are of the samples; unreachable storage raises OSError.
    """

    def __init__(self, shards: ShardSet, cache: PageCache | None = None) -> None:
        self.shards, self.cache = shards, cache

    def __call__(self, wanted: Iterable[Place]) -> Iterator[RawSample]:
        """A stage of a `wds.DataPipeline`: places in, raw samples out, in the same order."""
        for place in wanted:
            yield from self.read([place])

    def read(self, wanted: list[Place]) -> list[RawSample]:
        """The samples at `wanted`, in that order, from as few reads as their neighbourhood allows."""
        found: dict[Place, RawSample] = {}
        for run in _runs(sorted(set(wanted)), self.shards):
            found |= zip(run, self._read_run(run), strict=True)
        return [found[place] for place in wanted]

    def _read_run(self, run: list[Place]) -> list[RawSample]:
        """Samples of one shard in one read, and in a second one where the first brought damage."""
        number = run[0].shard
        index, uri, shard = (
            self.shards.index(number),
            self.shards.uri(number),
            self.shards.manifest.shards[number],
        )
        start = int(index.offsets[run[0].position])
        length = _end(index, run[-1]) - start
        read = partial(storage.read_bytes, uri)
        try:
            if self.cache is not None:
                samples = _samples(uri, index, run, self.cache.read(uri, shard, start, length, read), start)
                if all("__error__" not in sample for sample in samples):
                    return samples
                self.cache.forget(uri, shard, start, length)
            samples = _samples(uri, index, run, read(start, length), start)
            if all("__error__" not in sample for sample in samples):
                return samples
            # What was damaged on its way is whole the second time; what lies damaged is damaged again.
            return _samples(uri, index, run, read(start, length), start)
        except storage.MissingError:
            return [
                {"__key__": index.keys[place.position], "__url__": uri, "__error__": "missing"}
                for place in run
            ]


def _samples(uri: str, index: ShardIndex, run: list[Place], data: bytes, start: int) -> list[RawSample]:
    return [_sample(uri, index, place.position, data, start) for place in run]


def _sample(uri: str, index: ShardIndex, position: int, data: bytes, start: int) -> RawSample:
    """The sample out of `data`, which begins at `start` in the tar."""
    offset, length = int(index.offsets[position]) - start, int(index.lengths[position])
    span = data[offset : offset + length]
    sample: RawSample = {"__key__": index.keys[position], "__url__": uri}
    if len(span) != length:
        return {**sample, "__error__": "truncated"}
    if zlib.crc32(span) != index.crc32s[position]:
        return {**sample, "__error__": "damaged"}
    return {**sample, **members(span)}


def _end(index: ShardIndex, place: Place) -> int:
    return int(index.offsets[place.position] + index.lengths[place.position])


def _runs(wanted: list[Place], shards: ShardSet) -> Iterator[list[Place]]:
    """Sorted places in runs that lie so close together that one read is cheaper than several."""
    run: list[Place] = []
    for place in wanted:
        index = shards.index(place.shard)
        if run and (
            place.shard != run[-1].shard
            or index.offsets[place.position] - _end(index, run[-1]) > _MERGE_GAP
            or _end(index, place) - index.offsets[run[0].position] > _READ_LIMIT
        ):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
