"""Shards to raw samples: ranges of neighbours in one read, every sample checked against the manifest.

A raw sample is webdataset's: {"__key__", "__url__", extension: bytes…}, so that its stages compose with ours.
"""

from __future__ import annotations

import io
import logging
import tarfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from webdataset.pipeline import DataPipeline
from webdataset.tariterators import base_plus_ext

from dalle2_train import storage
from dalle2_train.data.manifest import Shard, ShardManifest, load_or_index
from dalle2_train.errors import InputError

RawSample = dict[str, Any]
MEMBER_LIMIT = 1 << 28
_MERGE_GAP = 1 << 16
_READ_LIMIT = 1 << 26
_RETRY_SECONDS = (0.2, 1.0, 4.0)

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """A sample's shard and its position there."""

    shard: int
    position: int


def places(manifest: ShardManifest, split: str | None = None) -> list[Place]:
    """Every sample of a split (None: all), in the order of the shards. A split that isn't there: InputError."""
    found = [
        Place(number, position)
        for number, shard in enumerate(manifest.shards)
        for position, name in enumerate(shard.splits)
        if split in (None, name)
    ]
    if not found:
        raise InputError(
            f"no samples in the split {split!r}; choose one that the set has: {manifest.count()}"
        )
    return found


class Reader:
    """Reads the samples of one set. `problem` of a damaged sample is its "__error__" instead of members."""

    def __init__(self, uri: str, manifest: ShardManifest) -> None:
        self.uri = storage.absolute(uri)
        self.manifest = manifest

    def __call__(self, wanted: Iterable[Place]) -> Iterator[RawSample]:
        """A stage of a `wds.DataPipeline`: places in, raw samples out, in the same order."""
        for place in wanted:
            yield from self.read([place])

    def read(self, wanted: list[Place]) -> list[RawSample]:
        """The samples at `wanted`, in that order, from as few reads as their neighbourhood allows."""
        found: dict[Place, RawSample] = {}
        for run in _runs(sorted(set(wanted)), self.manifest):
            shard = self.manifest.shards[run[0].shard]
            uri = storage.join(self.uri, shard.path)
            start = shard.offsets[run[0].position]
            data = _read_patiently(uri, start, _end(shard, run[-1]) - start)
            for place in run:
                found[place] = self._sample(uri, shard, place.position, data, start)
        return [found[place] for place in wanted]

    def _sample(self, uri: str, shard: Shard, position: int, data: bytes, start: int) -> RawSample:
        key, offset = shard.keys[position], shard.offsets[position] - start
        span = data[offset : offset + shard.lengths[position]]
        sample: RawSample = {"__key__": key, "__url__": uri}
        if len(span) != shard.lengths[position]:
            return {**sample, "__error__": "truncated"}
        if zlib.crc32(span) != shard.crc32s[position]:
            return {**sample, "__error__": "damaged"}
        return {**sample, **members(span)}


def pipeline(uri: str, split: str | None = None, *stages: Callable[..., Any]) -> DataPipeline:
    """One pass over a set as a `wds.DataPipeline` of raw samples, then `stages`."""
    manifest = load_or_index(uri)
    return DataPipeline(_Source(places(manifest, split)), Reader(uri, manifest), *stages)


class _Source:
    """webdataset's first stage is a callable without arguments."""

    def __init__(self, wanted: list[Place]) -> None:
        self.wanted = wanted

    def __call__(self) -> Iterator[Place]:
        return iter(self.wanted)


def members(span: bytes) -> dict[str, bytes]:
    """The members of one sample by extension, from its bytes in the tar."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(span), mode="r:") as tar:
        for info in tar:
            _, extension = base_plus_ext(info.name)
            stream = tar.extractfile(info) if info.isreg() and info.size <= MEMBER_LIMIT else None
            if extension and stream is not None:
                found[extension.lower()] = stream.read()
    return found


def _end(shard: Shard, place: Place) -> int:
    return shard.offsets[place.position] + shard.lengths[place.position]


def _runs(wanted: list[Place], manifest: ShardManifest) -> Iterator[list[Place]]:
    """Sorted places in runs that lie so close together that one read is cheaper than several."""
    run: list[Place] = []
    for place in wanted:
        shard = manifest.shards[place.shard]
        if run and (
            place.shard != run[-1].shard
            or shard.offsets[place.position] - _end(shard, run[-1]) > _MERGE_GAP
            or _end(shard, place) - shard.offsets[run[0].position] > _READ_LIMIT
        ):
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def _read_patiently(uri: str, start: int, length: int) -> bytes:
    """A read that is tried again: storage that fails now and then must not cost a run, nor a sample."""
    for pause in _RETRY_SECONDS:
        try:
            return storage.read_bytes(uri, start, length)
        except OSError as error:
            _log.warning("%s: %s; trying again in %.1f s", uri, error, pause)
            time.sleep(pause)
    return storage.read_bytes(uri, start, length)
