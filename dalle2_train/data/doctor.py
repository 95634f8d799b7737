"""Finds what is wrong with a shard set: every fault by shard, key and kind, whoever wrote the shards."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO

from dalle2_train import storage
from dalle2_train.data import manifest as manifests
from dalle2_train.data import tarscan
from dalle2_train.data.decode import (
    IMAGE_EXTENSIONS,
    decode_array,
    decode_record,
    decode_text,
    verify_image,
)
from dalle2_train.data.embedded import IMAGE_EMBED, TEXT_EMBED
from dalle2_train.data.faults import Fault
from dalle2_train.data.locate import home_of, shard_uris
from dalle2_train.data.manifest import TEXT_LIMIT, Shard, ShardManifest, ShardSet
from dalle2_train.data.shard_index import ShardIndex
from dalle2_train.data.tarscan import Sample
from dalle2_train.errors import InputError

_IMAGE_LIMIT = 1 << 28


@dataclass(frozen=True)
class CheckReport:
    """All faults of a set, and how much was looked at."""

    uri: str
    num_shards: int
    num_samples: int
    has_manifest: bool
    faults: tuple[Fault, ...]


def check(uri: str) -> CheckReport:
    """Reads every byte of the set at `uri`. A place without any shards: InputError."""
    tars = {tar.rsplit("/", 1)[-1]: tar for tar in shard_uris(uri)}
    listed = manifests.has_manifest(home_of(uri))
    shards = ShardSet(home_of(uri), manifests.load(home_of(uri)) if listed else ShardManifest(()))
    manifest = shards.manifest
    if not tars and not manifest.shards:
        raise InputError(f"{uri}: holds no .tar shards; give a folder of shards")
    expected = {shard.name: (shard, shards.index(i)) for i, shard in enumerate(manifest.shards)}
    embedded = manifest.embeddings is not None
    faults = [Fault(name, None, "missing") for name in expected if name not in tars]
    num_samples = 0
    seen: Counter[str] = Counter()
    for name, tar in tars.items():
        if listed and name not in expected:
            faults.append(Fault(name, None, "unlisted"))
        with storage.as_local(tar) as path:
            found = tarscan.scan(path)
            faults += _shard_faults(name, path, found, expected.get(name))
            faults += _sample_faults(name, path, found.samples, expected.get(name), embedded)
        faults += _count_faults(uri, name, len(found.samples))
        faults += [Fault(name, key, "duplicate") for key in _repeated(found.samples, seen)]
        num_samples += len(found.samples)
    return CheckReport(storage.absolute(uri), len(tars), num_samples, listed, tuple(dict.fromkeys(faults)))


def _shard_faults(
    name: str, path: Path, found: tarscan.TarScan, listed: tuple[Shard, ShardIndex] | None
) -> Iterator[Fault]:
    shard, index = listed or (None, None)
    if shard is not None and path.stat().st_size < shard.size:
        yield Fault(name, None, "truncated")
    elif found.problem is not None:
        yield Fault(name, None, found.problem)
    elif shard is not None and storage.sha256_file(path) != shard.sha256:
        yield Fault(name, None, "digest")
    if index is None:
        return
    keys = {sample.key for sample in found.samples}
    yield from (Fault(name, key, "missing") for key in index.keys if key not in keys)
    yield from (Fault(name, key, "unlisted") for key in sorted(keys - set(index.keys)))


def _sample_faults(
    name: str,
    path: Path,
    samples: tuple[Sample, ...],
    listed: tuple[Shard, ShardIndex] | None,
    embedded: bool,
) -> Iterator[Fault]:
    index = listed[1] if listed else None
    spans = zip(index.keys, index.offsets, index.lengths, index.crc32s, strict=True) if index else ()
    crc32s = {key: (offset, length, crc32) for key, offset, length, crc32 in spans}
    with path.open("rb") as stream:
        for sample in samples:
            if sample.key in crc32s:
                offset, length, crc32 = crc32s[sample.key]
                stream.seek(offset)
                if zlib.crc32(stream.read(length)) != crc32:
                    yield Fault(name, sample.key, "damaged")
            for kind in _kinds(stream, sample, embedded):
                yield Fault(name, sample.key, kind)


def _kinds(stream: IO[bytes], sample: Sample, embedded: bool) -> Iterator[str]:
    """What is wrong with the members of one sample."""
    caption = sample.read(stream, "txt", TEXT_LIMIT)
    record = sample.read(stream, "json", TEXT_LIMIT)
    if caption is None:
        yield "no_caption"
    elif not _reads(decode_text, caption):
        yield "broken_caption"
    if record is not None and not _reads(decode_record, record):
        yield "broken_record"
        record = None
    yield from _vector_kinds(stream, sample) if embedded else _image_kinds(stream, sample, record)


def _image_kinds(stream: IO[bytes], sample: Sample, record: bytes | None) -> Iterator[str]:
    found = (sample.read(stream, extension, _IMAGE_LIMIT) for extension in IMAGE_EXTENSIONS)
    image = next((data for data in found if data is not None), None)
    if image is None:
        yield "no_image"
        return
    if not _reads(verify_image, image):
        yield "broken_image"
    promised = json.loads(record).get("sha256") if record else None
    # img2dataset's digest is of the file before it was resized; ours says the key of whose bytes it is.
    if _is_ours(record) and promised != sha256(image).hexdigest():
        yield "image_digest"


def _is_ours(record: bytes | None) -> bool:
    return record is not None and "split" in json.loads(record)


def _vector_kinds(stream: IO[bytes], sample: Sample) -> Iterator[str]:
    for name in (IMAGE_EMBED, TEXT_EMBED):
        data = sample.read(stream, name, _IMAGE_LIMIT)
        if data is None:
            yield "no_embedding"
        elif not _reads(decode_array, data):
            yield "broken_embedding"


def _reads(decode: Callable[[bytes], object], data: bytes) -> bool:
    try:
        result = decode(data)
    except ValueError:
        return False
    return not isinstance(result, str) or result != ""


def _count_faults(uri: str, name: str, count: int) -> Iterator[Fault]:
    """img2dataset's count of successes, without which a tar cut at a sample's end looks whole."""
    stats = storage.join(uri, f"{name.removesuffix('.tar')}_stats.json")
    if not storage.exists(stats):
        return
    try:
        successes = storage.read_json(stats)["successes"]
    except (InputError, KeyError, TypeError):
        yield Fault(name, None, "stats")
        return
    if successes != count:
        yield Fault(name, None, "count")


def _repeated(samples: tuple[Sample, ...], seen: Counter[str]) -> list[str]:
    """Keys that have come before, in this shard or another."""
    keys = [sample.key for sample in samples]
    again = [key for key, count in Counter(keys).items() if count + seen[key] > 1]
    seen.update(keys)
    return again
