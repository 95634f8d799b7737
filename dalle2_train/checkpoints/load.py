"""Find the newest checkpoint that is whole, and load it into whatever mesh there is now."""

import sys
import time
from itertools import chain
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import gather, of_first_rank, rank, together, world_size
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps
from dalle2_train.checkpoints.manifest import ModelManifest, find_faults, read_manifest
from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.storage.retry import is_transient

# The same on every rank, so that all try again together: 121 s.
_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0)


def newest_whole(run_uri: str) -> tuple[str, ModelManifest] | None:
    """(folder, manifest) of the newest checkpoint whose every digest holds, or None; says which ones it passes over.

    In a process group every rank calls it and checks its part of the files.
    """
    for step in reversed(of_first_rank(together(lambda: committed_steps(run_uri)))):
        folder = checkpoint_uri(run_uri, step)
        manifest, mine = together(lambda folder=folder: _examined(folder))
        faults = list(chain.from_iterable(gather(mine)))
        if not faults and manifest is not None:
            return folder, manifest
        if rank() == 0:
            told = f"checkpoint {folder} is not whole ({'; '.join(faults)}); looking for an older one"
            print(redact(told), file=sys.stderr)
    return None


def _examined(folder: str) -> tuple[ModelManifest | None, list[str]]:
    """(manifest, what is wrong with this rank's part of the files)."""
    try:
        manifest = read_manifest(folder)
    except InputError as error:
        return None, [str(error)]
    return manifest, find_faults(folder, manifest, list(manifest.files)[rank() :: world_size()])


def load_into(folder: str, state: dict[str, Any], alone: bool = False) -> None:
    """Load a verified checkpoint's tensors in place, whatever mesh wrote them; every rank calls it, or one `alone`.

    Raises OSError where they cannot be read, on all ranks; what fails in passing is tried again.
    """
    for pause in (*_PAUSES, None):
        try:
            return dcp.load(state, storage_reader=reader(folder), no_dist=alone)
        except dcp.CheckpointException as error:  # no Exception; every rank has it, with what failed where
            reasons = [reason for reason, _ in error.failures.values()]
            if pause is None or not all(is_transient(reason) for reason in reasons):
                raise OSError(f"loading {folder}: {reasons[0]}") from error
            time.sleep(pause)


def reader(folder: str) -> dcp.StorageReader:
    """DCP's reader for a local or remote folder."""
    local = storage.local_path(folder)
    return dcp.FileSystemReader(local) if local is not None else FsspecReader(folder)
