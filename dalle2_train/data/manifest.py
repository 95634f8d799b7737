"""The manifest of a shard set: which samples lie where, and the digests that say whether they still do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.data import tarscan
from dalle2_train.errors import InputError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
TEXT_LIMIT = 1 << 20
"""Bytes; a caption or a json record that is larger is damage or an attack."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One tar. The columns `keys` … `splits` have an entry per sample, in the tar's order."""

    path: str
    size: int
    sha256: str
    keys: tuple[str, ...]
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    crc32s: tuple[int, ...]
    splits: tuple[str, ...]

    @property
    def num_samples(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class EmbeddingInfo:
    """What an embedded set says about its vectors; `mean` and `std` (E,) are those of the train split's images."""

    clip_uri: str
    clip_fingerprint: str
    embed_dim: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    norm: float
    dtype: str
    text_encodings: bool
    source: dict[str, str]
    covariance_sha256: str | None = None
    """Of covariance.npy beside the manifest, (E, E) of the train split's images; None: embedded without it."""


@dataclass(frozen=True)
class ShardManifest:
    """All shards of a set, where they came from, and, for an embedded set, by which CLIP."""

    shards: tuple[Shard, ...]
    source: dict[str, Any] = field(default_factory=dict)
    embeddings: EmbeddingInfo | None = None
    version: int = FORMAT_VERSION

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 over the shards' names and digests: the identity of the data."""
        text = "\n".join(f"{shard.path} {shard.sha256}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()

    def count(self) -> dict[str, int]:
        """Samples per split."""
        counts: dict[str, int] = {}
        for shard in self.shards:
            for split in shard.splits:
                counts[split] = counts.get(split, 0) + 1
        return dict(sorted(counts.items()))


def publish(manifest: ShardManifest, uri: str) -> None:
    """Writes `manifest` to the folder `uri`. It comes last: a set with a manifest is whole."""
    text = json.dumps(dataclasses.asdict(manifest), separators=(",", ":"), allow_nan=False)
    storage.publish_bytes(storage.join(uri, MANIFEST), text.encode())


def load(uri: str) -> ShardManifest:
    """The manifest of the folder `uri`. Missing, damaged or of a newer version: InputError."""
    place = storage.join(uri, MANIFEST)
    found = storage.read_json(place)
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise InputError(
            f"{place}: version {version} is newer than this program's {FORMAT_VERSION}; update it"
        )
    try:
        shards = tuple(_shard(entry) for entry in found["shards"])
        embeddings = found.get("embeddings")
        info = EmbeddingInfo(**_tuples(embeddings)) if embeddings else None
        return ShardManifest(shards, found.get("source", {}), info, found["version"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{place}: not a shard manifest ({error}); restore it, or remove it and ingest, embed or index again"
        ) from error


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def _shard(entry: dict[str, Any]) -> Shard:
    shard = Shard(**_tuples(entry))
    if Path(shard.path).name != shard.path:
        raise ValueError(f"shard path {shard.path!r} is not a file name")
    columns = (shard.keys, shard.offsets, shard.lengths, shard.crc32s, shard.splits)
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"the columns of {shard.path} differ in length")
    return shard


def index(uri: str) -> ShardManifest:
    """Reads every tar directly in the folder `uri` and publishes its manifest. No tar, or a damaged one: InputError.

    What an earlier manifest knows of where the shards came from, and of the CLIP that embedded them, stays.
    """
    tars = shard_uris(uri)
    if not tars:
        raise InputError(f"{uri}: holds no .tar shards; give a folder of shards, or ingest one first")
    earlier = load(uri) if storage.exists(storage.join(uri, MANIFEST)) else ShardManifest(())
    manifest = dataclasses.replace(
        earlier, shards=tuple(index_shard(tar) for tar in tars), version=FORMAT_VERSION
    )
    publish(manifest, uri)
    return manifest


def load_or_index(uri: str) -> ShardManifest:
    """The manifest of `uri`, made now where there is none."""
    if storage.exists(storage.join(uri, MANIFEST)):
        return load(uri)
    _log.info("%s has no manifest: indexing its shards", uri)
    return index(uri)


def shard_uris(uri: str) -> list[str]:
    """The tars directly in the folder `uri`, sorted."""
    base = storage.join(uri).rsplit("/", 1)[-1]
    return [tar for tar in storage.list_files(uri, ".tar") if tar.rsplit("/", 2)[-2] == base]


def index_shard(uri: str) -> Shard:
    """Where the samples of one tar lie. A damaged tar: InputError."""
    with storage.as_local(uri) as path:
        found = tarscan.scan(path)
        if found.problem is not None:
            raise InputError(
                f"{uri}: {found.problem}; `shards check` says more, make or fetch the shard again"
            )
        crc32s, splits = [], []
        with path.open("rb") as stream:
            for sample in found.samples:
                stream.seek(sample.offset)
                crc32s.append(zlib.crc32(stream.read(sample.length)))
                splits.append(split_of(sample.read(stream, "json", TEXT_LIMIT)))
        return Shard(
            path=uri.rsplit("/", 1)[-1],
            size=path.stat().st_size,
            sha256=storage.sha256_file(path),
            keys=tuple(sample.key for sample in found.samples),
            offsets=tuple(sample.offset for sample in found.samples),
            lengths=tuple(sample.length for sample in found.samples),
            crc32s=tuple(crc32s),
            splits=tuple(splits),
        )


def split_of(record: bytes | None) -> str:
    """The `split` that a json record names; records without one (LAION's) are for training."""
    try:
        found = json.loads(record or b"{}")
    except ValueError:
        return "train"
    split = found.get("split") if isinstance(found, dict) else None
    return split if isinstance(split, str) and split else "train"
