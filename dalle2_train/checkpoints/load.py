"""Find the newest checkpoint that is whole, and load it into whatever mesh there is now."""

import sys
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps
from dalle2_train.checkpoints.manifest import ModelManifest, find_faults, read_manifest
from dalle2_train.errors import InputError


def newest_whole(run_uri: str) -> tuple[str, ModelManifest] | None:
    """(folder, manifest) of the newest checkpoint whose every digest holds, or None; says which ones it passes over.

    In a process group every rank calls it and checks its part of the files.
    """
    for step in reversed(_broadcast(committed_steps(run_uri) if _rank() == 0 else [])):
        folder = checkpoint_uri(run_uri, step)
        try:
            manifest, faults = read_manifest(folder), []
        except InputError as error:
            manifest, faults = None, [str(error)]
        if manifest is not None:
            faults = find_faults(folder, manifest, list(manifest.files)[_rank() :: _world_size()])
        faults = _gather(faults)
        if not faults and manifest is not None:
            return folder, manifest
        if _rank() == 0:
            print(
                f"checkpoint {folder} is not whole ({'; '.join(faults)}); looking for an older one",
                file=sys.stderr,
            )
    return None


def load_into(folder: str, state: dict[str, Any]) -> None:
    """Load a verified checkpoint's tensors in place, whatever mesh wrote them; every rank calls it."""
    dcp.load(state, storage_reader=reader(folder))


def reader(folder: str) -> dcp.StorageReader:
    """DCP's reader for a local or remote folder."""
    local = storage.local_path(folder)
    return dcp.FileSystemReader(local) if local is not None else FsspecReader(folder)


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _broadcast(steps: list[int]) -> list[int]:
    if _world_size() == 1:
        return steps
    packed: list[Any] = [steps]
    dist.broadcast_object_list(packed, src=0)
    return packed[0]


def _gather(faults: list[str]) -> list[str]:
    if _world_size() == 1:
        return faults
    parts: list[list[str]] = [[] for _ in range(_world_size())]
    dist.all_gather_object(parts, faults)
    return [fault for part in parts for fault in part]
