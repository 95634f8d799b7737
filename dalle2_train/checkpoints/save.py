"""Writing a checkpoint: every rank writes its part; the manifest makes it count."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import gather, together
from dalle2_train.checkpoints.layout import checkpoint_uri
from dalle2_train.checkpoints.manifest import FileEntry, ModelManifest, publish_manifest
from dalle2_train.checkpoints.retention import Keep, remove_checkpoint, retire
from dalle2_train.errors import InputError

Files = dict[str, FileEntry]


class Snapshot(NamedTuple):
    """What a checkpoint holds, as this rank has it."""

    state: dict[str, Any]
    """Of `state.state_of`."""
    manifest: ModelManifest
    files: Mapping[str, bytes] = MappingProxyType({})
    """What lies beside the tensors; rank 0's are taken."""
    order: Any = None
    """Where the data of this rank stands; its class's `merge` and `to_json` make the manifest's of all ranks'."""


class Guard(NamedTuple):
    """What rank 0 does around a save."""

    check_owner: Callable[[], object] = lambda: None
    """Raises where the run is another process's by now; asked before anything is changed, and around `flush`."""
    flush: Callable[[], object] = lambda: None
    """Makes what else was recorded up to the checkpoint outlive this machine, before it counts."""


def save(
    run_uri: str,
    snapshot: Snapshot,
    keep: Keep,
    guard: Guard = Guard(),  # noqa: B008 - it is frozen
    group: dist.ProcessGroup | None = None,
) -> str:
    """Write the checkpoint of `snapshot.manifest.step` and remove all but those to `keep`; every rank calls it.

    Returns the checkpoint's URI. group: the ranks' exchanges go through it; with one of its own a save goes on beside a
    training. What fails on one rank is raised on all. A process killed anywhere in here leaves the checkpoints that
    were whole before.
    """
    step = snapshot.manifest.step
    folder = checkpoint_uri(run_uri, step)
    _first(group, lambda: (guard.check_owner(), remove_checkpoint(folder)))
    with _staging(folder) as stage:
        _write_tensors(snapshot.state, stage, group)
        more = snapshot.files if dist.get_rank() == 0 else {}
        files = gather(together(lambda: _publish_all(stage, folder, more), group), group)
    orders = gather(snapshot.order, group)

    def commit() -> None:
        manifest = _whole(snapshot, files, orders)
        _check_there(folder, manifest)
        guard.check_owner()  # before what is flushed takes the place of what another has recorded
        guard.flush()
        guard.check_owner()
        publish_manifest(folder, manifest)

    _first(group, commit)
    if dist.get_rank() == 0:
        retire(run_uri, step, keep)
    return folder


def _first(group: dist.ProcessGroup | None, work: Callable[[], object]) -> None:
    """Rank 0 does it; where it fails, all raise."""
    together(lambda: work() if dist.get_rank() == 0 else None, group)


def _check_there(folder: str, manifest: ModelManifest) -> None:
    """Raises InputError where rank 0 does not see what the others have written."""
    found = storage.stats([storage.join(folder, name) for name in manifest.files])
    absent = [uri for uri, entry in zip(found, manifest.files.values(), strict=True)
              if (stat := found[uri]) is None or stat.size != entry.size]  # fmt: skip
    if absent:
        raise InputError(f"{absent[0]} was written by another rank, and is not seen from the first one's machine; give "
                         "a --storage that all machines share")  # fmt: skip


def _write_tensors(state: dict[str, Any], stage: Path, group: dist.ProcessGroup | None) -> None:
    try:
        writer = dcp.FileSystemWriter(stage, single_file_per_rank=True)
        dcp.save(state, storage_writer=writer, process_group=group)
    except dcp.CheckpointException as error:  # no Exception, and raised on all ranks
        raise OSError(f"writing a checkpoint: {error}") from error


def _publish_all(stage: Path, folder: str, more: Mapping[str, bytes]) -> Files:
    mine = {path.name: _publish(path, folder) for path in _own_files(stage)}
    for name, data in more.items():
        mine[name] = FileEntry(storage.publish_bytes(storage.join(folder, name), data), len(data))
    return mine


def _whole(snapshot: Snapshot, files: list[Files], orders: list[Any]) -> ModelManifest:
    merged = {name: entry for part in files for name, entry in part.items()}
    kind = type(snapshot.order)
    return replace(
        snapshot.manifest,
        files=dict(sorted(merged.items())),
        order=snapshot.manifest.order if snapshot.order is None else kind.merge(orders).to_json(),
        world_size=dist.get_world_size(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def _staging(folder: str) -> Iterator[Path]:
    """Where this rank's tensors are written: in place on a local file system, else in a folder to be uploaded."""
    local = storage.local_path(folder)
    if local is not None:
        yield local
        return
    with storage.Scratch() as scratch:
        yield scratch.path


def _own_files(stage: Path) -> list[Path]:
    rank = dist.get_rank()
    return sorted(stage.glob(f"__{rank}_*")) + ([stage / ".metadata"] if rank == 0 else [])


def _publish(path: Path, folder: str) -> FileEntry:
    if storage.local_path(folder) is not None:
        return FileEntry(storage.sha256_file(path), os.path.getsize(path))
    return FileEntry(storage.publish_file(path, storage.join(folder, path.name)), os.path.getsize(path))
