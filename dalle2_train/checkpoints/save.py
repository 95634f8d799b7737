"""Every rank writes its part of a checkpoint; the manifest makes it count."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, started_steps
from dalle2_train.checkpoints.manifest import (
    MANIFEST_NAME,
    FileEntry,
    ModelManifest,
    has_manifest,
    publish_manifest,
)


def save(
    run_uri: str,
    state: dict[str, Any],
    manifest: ModelManifest,
    extra_files: Mapping[str, bytes] | None = None,
    keep: int = 2,
) -> str:
    """Write the checkpoint of `manifest.step` and remove all but the newest `keep`; every rank calls it.

    Returns the checkpoint's URI. `extra_files` (rank 0's are taken) lie beside the tensors. A process killed
    anywhere in here leaves the checkpoints that were whole before.
    """
    folder = checkpoint_uri(run_uri, manifest.step)
    if dist.get_rank() == 0:
        storage.remove(folder)
    dist.barrier()
    with _staging(folder) as stage:
        dcp.save(state, storage_writer=dcp.FileSystemWriter(stage, single_file_per_rank=True))
        mine = {path.name: _publish(path, folder) for path in _own_files(stage)}
    if dist.get_rank() == 0:
        for name, data in (extra_files or {}).items():
            mine[name] = FileEntry(storage.publish_bytes(storage.join(folder, name), data), len(data))
    files = _gather(mine)
    if dist.get_rank() == 0:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        whole = replace(
            manifest, files=dict(sorted(files.items())), world_size=dist.get_world_size(), created=created
        )
        publish_manifest(folder, whole)
        _retire(run_uri, manifest.step, keep)
    dist.barrier()
    return folder


def _gather(mine: dict[str, FileEntry]) -> dict[str, FileEntry]:
    parts: list[dict[str, FileEntry] | None] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, mine)
    return {name: entry for part in parts if part for name, entry in part.items()}


@contextmanager
def _staging(folder: str) -> Iterator[Path]:
    """Where this rank's tensors are written: in place on a local file system, else in a folder to be uploaded."""
    local = storage.local_path(folder)
    if local is not None:
        yield local
        return
    stage = Path(tempfile.mkdtemp(prefix="dalle2-checkpoint-"))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _own_files(stage: Path) -> list[Path]:
    rank = dist.get_rank()
    return sorted(stage.glob(f"__{rank}_*")) + ([stage / ".metadata"] if rank == 0 else [])


def _publish(path: Path, folder: str) -> FileEntry:
    if storage.local_path(folder) is not None:
        return FileEntry(storage.sha256_file(path), os.path.getsize(path))
    return FileEntry(storage.publish_file(path, storage.join(folder, path.name)), os.path.getsize(path))


def _retire(run_uri: str, step: int, keep: int) -> None:
    """Remove old checkpoints, the manifest first so that none is ever half there, and unfinished ones.

    Those after `step` were passed over as damaged when the run went on: they take no place among the kept ones.
    """
    kept = {old for old in committed_steps(run_uri) if old <= step}
    kept = {*sorted(kept)[-keep:], step}
    for old in started_steps(run_uri):
        folder = checkpoint_uri(run_uri, old)
        if old not in kept and (old < step or not has_manifest(folder)):
            storage.remove(storage.join(folder, MANIFEST_NAME))
            storage.remove(folder)
