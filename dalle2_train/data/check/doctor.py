"""Finds what is wrong with a shard set: every fault by shard, key and kind, whoever wrote the shards.

A shard is looked at alone, in bounded memory, so that many can be looked at at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dalle2_train import storage
from dalle2_train.data.check.repeats import repeats
from dalle2_train.data.check.sample_check import sample_faults
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.check import check_embeddings
from dalle2_train.data.embeddings.sets import EmbeddingSet, open_embeddings
from dalle2_train.data.faults import Fault
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards import manifest as manifests
from dalle2_train.data.shards import tarscan
from dalle2_train.data.shards.freshness import tars_of
from dalle2_train.data.shards.locate import home_of, relative_to
from dalle2_train.data.shards.manifest import Shard, ShardManifest, ShardSet
from dalle2_train.data.shards.promises import Promise, promise_of
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class CheckReport:
    """All faults of a set, and how much was looked at."""

    uri: str
    num_shards: int
    num_samples: int
    has_manifest: bool
    faults: tuple[Fault, ...]

    def count(self) -> dict[str, int]:
        """Kind → faults, the most frequent first."""
        return dict(Counter(fault.kind for fault in self.faults).most_common())


class Task(NamedTuple):
    """One tar to be looked at, and what the manifest in `home` says of it."""

    tar: str
    home: str
    shard: Shard | None

    @property
    def name(self) -> str:
        """What faults call the tar: as a manifest does."""
        return relative_to(self.home, self.tar)


class ShardReport(NamedTuple):
    """What was found in one tar."""

    faults: tuple[Fault, ...]
    keys: tuple[str, ...]


MapShards = Callable[[Callable[[Task], ShardReport], list[Task]], Iterable[ShardReport]]
"""How the work on many shards is spread: (what to do, the tasks) → the results in the tasks' order."""


def check(uri: str, *, progress: Progress | None = None, map_shards: MapShards = map) -> CheckReport:
    """Reads every byte of the set at `uri`, shards and embeddings. A place without either: InputError.

    progress: hears of the shards done; by default stderr does.
    """
    home = home_of(uri)
    listed, manifest, tars = _look(uri)
    if not tars and not manifest.shards:
        return _check_embeddings(uri)
    expected = {shard.path: shard for shard in manifest.shards}
    there = {relative_to(home, tar): tar for tar, found in tars.items() if found is not None}
    faults = [Fault(path, None, "missing") for path in _missing(home, tars, there, expected)]
    if listed:
        faults += [Fault(path, None, "unlisted") for path in there if path not in expected]
    tasks = [Task(tar, home, expected.get(path)) for path, tar in there.items()]
    progress = progress or on_stderr("check", "shards")
    num_samples = 0
    with repeats() as seen:
        for done, (task, report) in enumerate(zip(tasks, map_shards(check_shard, tasks), strict=True), 1):
            faults += report.faults
            faults += [Fault(task.name, key, "duplicate") for key in seen.among(report.keys)]
            num_samples += len(report.keys)
            progress(done, len(tasks))
    if layout.has_embeddings(home):
        faults += check_embeddings(open_embeddings(uri))
    return CheckReport(storage.absolute(uri), len(tasks), num_samples, listed, tuple(dict.fromkeys(faults)))


def count_tars(uri: str) -> int:
    """How many tars `check` would read; of embeddings alone none. A place without either: InputError."""
    _, manifest, tars = _look(uri)
    if not tars and not manifest.shards:
        _open_embeddings(uri)
    return sum(found is not None for found in tars.values())


def _look(uri: str) -> tuple[bool, ShardManifest, dict[str, storage.Stat | None]]:
    """(is there a manifest, what it says, the tars that belong to the set now)."""
    home = home_of(uri)
    listed = manifests.has_manifest(home)
    manifest = manifests.load(home) if listed else ShardManifest(())
    return listed, manifest, tars_of(uri, ShardSet(home, manifest))


def _open_embeddings(uri: str) -> EmbeddingSet:
    """Embeddings without shards; a set that has neither is refused."""
    if not layout.has_embeddings(home_of(uri)):
        raise InputError(f"{uri}: holds no .tar shards; give a folder of shards, or of embeddings")
    return open_embeddings(uri)


def _check_embeddings(uri: str) -> CheckReport:
    found = _open_embeddings(uri)
    faults = tuple(check_embeddings(found))
    return CheckReport(storage.absolute(uri), len(found), found.embeddings.num_samples, True, faults)


def check_shard(task: Task) -> ShardReport:
    """Looks at one tar, and at the files beside it."""
    shards = ShardSet(task.home, ShardManifest((task.shard,))) if task.shard is not None else None
    index = shards.index(0) if shards is not None else None
    name = task.name
    promise = promise_of(task.tar)
    with storage.as_local(task.tar) as path:
        found = tarscan.scan(path)
        faults = [
            *_tar_faults(name, path, found.problem_of(promise.num_samples), task.shard),
            *_promise_faults(name, promise, found),
            *_index_faults(name, found, index),
            *sample_faults(name, path, found.samples, index),
        ]
    return ShardReport(tuple(faults), tuple(sample.key for sample in found.samples))


def _missing(
    home: str, tars: Iterable[str], there: dict[str, str], expected: dict[str, Shard]
) -> Iterator[str]:
    """Paths of the shards that the manifest, or a list in braces, names and that are not there."""
    named = dict.fromkeys([*expected, *(relative_to(home, tar) for tar in tars)])
    return (path for path in named if path not in there)


def _tar_faults(name: str, path: Path, problem: str | None, shard: Shard | None) -> Iterator[Fault]:
    """Of the tar's own structure, and against the manifest's size and digest."""
    size = path.stat().st_size
    if problem is not None:
        yield Fault(name, None, problem)
    if shard is None or (size == shard.size and storage.sha256_file(path) == shard.sha256):
        return
    if size < shard.size:
        yield Fault(name, None, "truncated", f"{size} bytes of {shard.size}")
    elif problem is None:
        yield Fault(name, None, "digest")


def _promise_faults(name: str, promise: Promise, found: tarscan.TarScan) -> Iterator[Fault]:
    """Against img2dataset's stats and parquet."""
    yield from (Fault(name, None, problem) for problem in promise.problems)
    count = len(found.samples)
    for source, promised in (
        ("stats promise", promise.stats),
        ("parquet promises", len(promise.keys) if promise.keys is not None else None),
    ):
        if promised is not None and promised != count:
            reason = f"it holds {count} samples, its {source} {promised}"
            yield Fault(name, None, "count", reason, max(0, promised - count))
    if promise.keys is not None:
        keys = {sample.key.rsplit("/", 1)[-1] for sample in found.samples}
        yield from (Fault(name, key, "missing") for key in sorted(promise.keys - keys))


def _index_faults(name: str, found: tarscan.TarScan, index: ShardIndex | None) -> Iterator[Fault]:
    """Samples that the manifest's index and the tar do not share."""
    if index is None:
        return
    keys = {sample.key for sample in found.samples}
    yield from (Fault(name, key, "missing") for key in index.keys if key not in keys)
    yield from (Fault(name, key, "unlisted") for key in sorted(keys - set(index.keys)))
