"""Makes the manifest of a set: every shard is read once, and again only when it has changed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dalle2_train import storage
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards import locate
from dalle2_train.data.shards.manifest import (
    MANIFEST,
    Shard,
    ShardManifest,
    ShardSet,
    elsewhere,
    has_manifest,
    index_uri,
    load,
    publish,
    shards_of,
)
from dalle2_train.data.shards.promises import promise_of
from dalle2_train.data.shards.read_shard import read_shard
from dalle2_train.data.shards.shard_index import ShardIndex, from_bytes, index_of, to_bytes
from dalle2_train.data.spread import in_processes
from dalle2_train.errors import InputError

_ABANDONED_SECONDS = 600.0
"""What nobody has written to for so long was left by a process that was killed; another may be indexing the set now."""

_log = logging.getLogger(__name__)

MapShards = Callable[[Callable[["Task"], Shard], list["Task"]], Iterable[Shard]]
"""How the work on many shards is spread: (what to do, the tasks) → the results in the tasks' order."""


class Task(NamedTuple):
    """One tar to be read, for the set in `home`."""

    home: str
    tar: str


class Plan(NamedTuple):
    """Which tars are to be read, and the folder of their manifest."""

    home: str
    tars: list[str]
    source: dict[str, str] | None
    """Where the tars lie, if their manifest cannot be kept beside them."""
    earlier: ShardManifest
    """Without shards where there is none."""


def index(
    uri: str,
    to: str | None = None,
    *,
    progress: Progress | None = None,
    map_shards: MapShards | None = None,
) -> ShardManifest:
    """Reads the shards that `uri` means and publishes their manifest in the folder `to` (by default beside them).

    Run again, it reads only what is new or has changed. A damaged tar is indexed up to its damage, which the
    manifest names, as it names a missing one. No tar at all, or a folder that cannot be written: InputError.

    map_shards: by default many shards are spread over this machine's processors.
    """
    home, tars, source, earlier = plan(uri, to)
    progress = progress or on_stderr("index", "shards")
    shards = []
    # What is kept in memory: is not there in another process.
    default = map if any(uri.startswith("memory:") for uri in (home, *tars)) else in_processes
    for shard in (map_shards or default)(index_one, [Task(home, tar) for tar in tars]):
        shards.append(shard)
        progress(len(shards), len(tars))
    if all(shard.problem == "missing" for shard in shards):
        raise InputError(f"{uri}: none of its {len(shards)} shards is there; check the name")
    manifest = dataclasses.replace(earlier, shards=tuple(shards), source=source or earlier.source)
    publish(manifest, home)
    _sweep(home)
    return manifest


def _sweep(home: str) -> None:
    """What others left that were killed; where we may not remove it, the manifest is no worse for it."""
    try:
        storage.sweep(home, _ABANDONED_SECONDS)
    except (InputError, OSError) as error:
        _log.warning("%s: what killed processes left there stays: %s", home, error)


def plan(uri: str, to: str | None = None, check: Callable[[str], None] = storage.check_writable) -> Plan:
    """What `index` would do; reads no shard. Its InputErrors are told here, before what may take hours.

    check: whether a folder can be written; `storage.check_could_write` leaves nothing there.
    """
    home = locate.home_of(to if to is not None else uri)
    source = elsewhere(uri) if to is not None and home != locate.home_of(uri) else None
    tars = locate.shard_uris(shards_of(uri) if source is None else uri)
    if not tars:
        raise InputError(f"{uri}: holds no .tar shards; give a folder of shards, or ingest one first")
    earlier = _earlier(home)
    if source is not None and earlier.shards and earlier.source != source:
        raise InputError(f"{home}: holds the manifest of other shards; give another folder as --to")
    _check_home(uri, home, check)
    return Plan(home, tars, source, earlier)


def _check_home(uri: str, home: str, check: Callable[[str], None]) -> None:
    try:
        check(home)
    except InputError as error:
        raise InputError(f"{home}: the manifest cannot be written there; run `dalle2-train shards index {uri} "
                         "--to FOLDER`, and give FOLDER as the data") from error  # fmt: skip


def open_set(uri: str) -> ShardSet:
    """The set that `uri` means; its manifest is made now where there is none."""
    home = locate.home_of(uri)
    return ShardSet(home, load_or_index(uri))


def load_or_index(uri: str) -> ShardManifest:
    """The manifest of what `uri` means, made now where there is none."""
    home = locate.home_of(uri)
    if has_manifest(home):
        return load(home)
    _log.info("%s has no manifest: indexing its shards", uri)
    return index(uri)


def index_one(task: Task) -> Shard:
    """Reads one tar and publishes its index, unless the index is there and the tar is what it was.

    A tar that changes while it is read: InputError.
    """
    path = locate.relative_to(task.home, task.tar)
    place = index_uri(task.home, path)
    try:
        entry = storage.stat(task.tar)
    except storage.MissingError:
        return _missing(task, path)
    if (kept := _kept(place)) is not None and _is_unchanged(kept, task.tar, entry, place):
        return kept
    with storage.as_local(task.tar) as local:
        shard, rows = read_shard(
            local, path, num_expected=promise_of(task.tar).num_samples, version=entry.version
        )
    if (shard.size, entry) != (entry.size, storage.stat(task.tar)):
        raise InputError(f"{task.tar}: changes while it is read; index it when it is written")
    publish_index(task.home, shard, rows)
    return shard


def _missing(task: Task, path: str) -> Shard:
    """A tar that a pattern names and that is not there has an index without rows."""
    expected = promise_of(task.tar).num_samples or 0
    shard = Shard(path, 0, storage.sha256_bytes(b""), 0, {}, expected, problem="missing")
    publish_index(task.home, shard, index_of([]))
    return shard


def _is_unchanged(kept: Shard, tar: str, entry: storage.Stat, place: str) -> bool:
    """Is the tar the one that `kept` describes? Where storage has no versions, a newer tar is read for its digest."""
    if (kept.size, kept.version) != (entry.size, entry.version):
        return False
    if entry.version is not None:
        return True
    indexed = storage.stat(place).modified
    if entry.modified is not None and indexed is not None and entry.modified < indexed:
        return True
    return storage.sha256_file(tar) == kept.sha256


def publish_index(home: str, shard: Shard, rows: ShardIndex) -> None:
    """Writes the index of a shard beside the manifest-to-be."""
    storage.publish_bytes(index_uri(home, shard.path), to_bytes(rows, dataclasses.asdict(shard)))


def _kept(place: str) -> Shard | None:
    """The shard whose index lies at `place`; None where there is none that can be read."""
    if not storage.exists(place):
        return None
    try:
        return Shard(**from_bytes(storage.read_bytes(place))[1])
    except (ValueError, TypeError):
        return None


def _earlier(home: str) -> ShardManifest:
    """What an earlier manifest knows beside the shards: where they came from."""
    place = storage.join(home, MANIFEST)
    if not storage.exists(place):
        return ShardManifest(())
    if has_manifest(home):
        return load(home)
    found = storage.read_json(place)  # version 1, whose shards are read anew
    return ShardManifest((), found.get("source", {}))
