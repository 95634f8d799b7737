"""The manifest of a shard set: its shards, what each holds, and the digests that say whether it still does.

`manifest.json` says it of the shards; `index/` beside it holds a `ShardIndex` for every shard, read when it is wanted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from dalle2_train import storage
from dalle2_train.data.shards.locate import home_of
from dalle2_train.data.shards.shard_index import ShardIndex, from_bytes
from dalle2_train.errors import InputError

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
_INDEXES_IN_MEMORY = 256


@dataclass(frozen=True)
class Shard:
    """One tar, as it was when it was read."""

    path: str
    """The file's name in the set's folder, or a whole URI."""
    size: int
    """Bytes."""
    sha256: str
    num_samples: int
    """Samples that the index lists."""
    splits: dict[str, int]
    """Split → samples."""
    num_expected: int
    """Samples that whoever made the shard promises; more than `num_samples` where some are gone."""
    problem: str | None = None
    """What is wrong with the tar, wholly or from some place on: one of SHARD_KINDS; None: nothing."""
    version: str | None = None
    """What the storage called this version of the file (an object's etag); None where it has no name for it."""

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def num_lost(self) -> int:
        """Samples that were promised and cannot be found any more."""
        return max(0, self.num_expected - self.num_samples)


@dataclass(frozen=True)
class ShardManifest:
    """All shards of a set, and where they came from."""

    shards: tuple[Shard, ...]
    source: dict[str, Any] = field(default_factory=dict)
    """What they were ingested from, or where they lie; empty: nobody said."""
    version: int = FORMAT_VERSION

    @property
    def num_samples(self) -> int:
        """Samples that the indexes list, faulty ones among them."""
        return sum(shard.num_samples for shard in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 over the shards' names and digests: the identity of the data."""
        text = "\n".join(f"{shard.path} {shard.sha256}" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()

    def count(self) -> dict[str, int]:
        """Samples per split."""
        counts: Counter[str] = Counter()
        for shard in self.shards:
            counts.update(shard.splits)
        return dict(sorted(counts.items()))


class ShardSet:
    """A set that has a manifest, and the indexes of its shards as they are wanted."""

    def __init__(self, home: str, manifest: ShardManifest) -> None:
        self.home, self.manifest = home, manifest
        self._index = lru_cache(_INDEXES_IN_MEMORY)(self._read_index)

    def __len__(self) -> int:
        return len(self.manifest.shards)

    def __getstate__(self) -> tuple[str, ShardManifest]:
        return self.home, self.manifest

    def __setstate__(self, state: tuple[str, ShardManifest]) -> None:
        self.__init__(*state)

    def uri(self, number: int) -> str:
        """Of a shard's tar."""
        path = self.manifest.shards[number].path
        return path if "/" in path else storage.join(self.home, path)

    def name(self, number: int) -> str:
        """What faults call a shard: as the manifest does, which tells shards of one name in several folders apart."""
        return self.manifest.shards[number].path

    def index(self, number: int) -> ShardIndex:
        """The rows of a shard. Missing or damaged: InputError."""
        return self._index(number)

    def _read_index(self, number: int) -> ShardIndex:
        shard = self.manifest.shards[number]
        uri = index_uri(self.home, shard.path)
        try:
            index, about = from_bytes(storage.read_bytes(uri))
        except ValueError as error:
            raise InputError(f"{uri}: {error}; run `shards index` again") from error
        if about.get("sha256") != shard.sha256 or len(index) != shard.num_samples:
            raise InputError(
                f"{uri}: is of another {shard.name} than the manifest's; run `shards index` again"
            )
        return index


def index_uri(home: str, path: str) -> str:
    """Where the index of the shard `path` of the set in `home` is kept; shards of one name have one each."""
    name = f"{PurePosixPath(path).stem}-{hashlib.sha256(path.encode()).hexdigest()[:8]}.parquet"
    return storage.join(home, "index", name)


def publish(manifest: ShardManifest, home: str) -> None:
    """Writes `manifest` to the folder `home`. It comes last: a set with a manifest is whole."""
    text = json.dumps(dataclasses.asdict(manifest), separators=(",", ":"), allow_nan=False)
    storage.publish_bytes(storage.join(home, MANIFEST), text.encode())


def has_manifest(home: str) -> bool:
    """Is there a manifest that this program reads?"""
    place = storage.join(home, MANIFEST)
    return storage.exists(place) and _version(storage.read_json(place)) != 1


def load(home: str) -> ShardManifest:
    """The manifest in the folder `home`. Missing, damaged, or of another version: InputError."""
    place = storage.join(home, MANIFEST)
    found = storage.read_json(place)
    version = _version(found)
    if version is not None and version != FORMAT_VERSION:
        remedy = "update it" if version > FORMAT_VERSION else "run `shards index` to write it anew"
        raise InputError(f"{place}: is of version {version}, this program's is {FORMAT_VERSION}; {remedy}")
    try:
        shards = tuple(Shard(**entry) for entry in found["shards"])
        return ShardManifest(shards, found.get("source", {}), found["version"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{place}: not a shard manifest ({error}); restore it, or remove it and ingest or index again"
        ) from error


def elsewhere(uri: str) -> dict[str, str]:
    """The source of a manifest whose shards lie at `uri`, where it cannot be kept beside them."""
    return {"kind": "elsewhere", "uri": storage.absolute(uri)}


def shards_of(uri: str) -> str:
    """Where the shards of the set `uri` are to be looked for: there, or elsewhere, as its manifest may say."""
    home = home_of(uri)
    source = load(home).source if has_manifest(home) else {}
    return source["uri"] if source.get("kind") == "elsewhere" else uri


def _version(found: Any) -> int | None:
    version = found.get("version") if isinstance(found, dict) else None
    return version if isinstance(version, int) else None
