"""From many ranks' shards to one file that anything can read: the averaged weights, whole."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dalle2_train import storage
from dalle2_train.checkpoints.load import load_into, reader
from dalle2_train.checkpoints.manifest import (
    MANIFEST_NAME,
    FileEntry,
    ModelManifest,
    find_faults,
    publish_manifest,
    read_manifest,
)
from dalle2_train.errors import RefusedError
from dalle2_train.storage.retry import patiently

WriteModel = Callable[[dict[str, Tensor], Path], None]


def consolidate(
    checkpoint: str,
    to: str,
    write_model: WriteModel | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> ModelManifest:
    """Write a checkpoint's averaged weights as a model folder at `to`; one process, no group needed.

    `write_model(weights, folder)` writes the released form, by default one model.safetensors.
    Raises RefusedError where the checkpoint is damaged.
    """
    manifest = verified(checkpoint)
    with storage.local_staging() as stage:
        (write_model or _write_safetensors)(averaged_weights(checkpoint), stage)
        for name, data in (extra_files or {}).items():
            (stage / name).write_bytes(data)
        storage.remove(storage.join(to, MANIFEST_NAME))
        paths = [path for path in sorted(stage.rglob("*")) if path.is_file()]
        names = [path.relative_to(stage).as_posix() for path in paths]
        files = {
            name: FileEntry(storage.publish_file(path, storage.join(to, name)), path.stat().st_size)
            for name, path in zip(names, paths, strict=True)
        }
    created = datetime.now(UTC).isoformat(timespec="seconds")
    released = replace(manifest, files=files, order=None, loss=None, created=created)
    publish_manifest(to, released)
    return released


def verified(folder: str) -> ModelManifest:
    """The manifest of a folder, once every file in it is what was written. Raises RefusedError otherwise."""
    manifest = read_manifest(folder)
    if faults := find_faults(folder, manifest):
        raise RefusedError(f"{folder} is not what was written: {'; '.join(faults)}")
    return manifest


def averaged_weights(checkpoint: str) -> dict[str, Tensor]:
    """A verified checkpoint's whole weights by the network's names: averages where there are any, else the value."""
    metadata = patiently(checkpoint, lambda: reader(checkpoint).read_metadata()).state_dict_metadata
    tensors = {name: entry for name, entry in metadata.items() if isinstance(entry, TensorStorageMetadata)}
    names = {name.removeprefix("model."): name for name in tensors if name.startswith("model.")}
    names |= {name.removeprefix("ema."): name for name in tensors if name.startswith("ema.")}
    weights = {
        source: torch.empty(tensors[source].size, dtype=tensors[source].properties.dtype)
        for source in names.values()
    }
    with warnings.catch_warnings():
        # One process is what is meant here.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load_into(checkpoint, weights, alone=True)
    return {name: weights[source] for name, source in names.items()}


def _write_safetensors(weights: dict[str, Tensor], folder: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
