"""Open the released or newest weights of a run, a checkpoint or a model folder."""

from pathlib import Path

from safetensors.torch import load as load_safetensors
from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints.consolidate import averaged_weights, verified
from dalle2_train.checkpoints.layout import model_uri
from dalle2_train.checkpoints.load import newest_whole
from dalle2_train.checkpoints.manifest import ModelManifest, has_manifest
from dalle2_train.errors import InputError

WEIGHTS_NAME = "model.safetensors"


def open_model(uri: str) -> tuple[ModelManifest, dict[str, Tensor]]:
    """(manifest, averaged weights by the network's names) of STORAGE/NAME, one checkpoint in it, or a model folder.

    A run without released weights yet gives its newest whole checkpoint. Every file is verified before it is read.
    Raises InputError where nothing is there, RefusedError where it is damaged.
    """
    folder = resolve_model(uri)
    manifest = verified(folder)
    if manifest.is_sharded:
        return manifest, averaged_weights(folder)
    if WEIGHTS_NAME not in manifest.files:
        raise InputError(
            f"{folder}: its manifest names no {WEIGHTS_NAME}; give a run, a checkpoint or a model folder"
        )
    local = storage.local_path(folder)
    data = (
        Path(local, WEIGHTS_NAME).read_bytes()
        if local
        else storage.read_bytes(storage.join(folder, WEIGHTS_NAME))
    )
    return manifest, load_safetensors(data)


def resolve_model(uri: str) -> str:
    """The folder with a manifest that `uri` means. Raises InputError where there is none."""
    for folder in (storage.absolute(uri), model_uri(uri)):
        if has_manifest(folder):
            return folder
    found = newest_whole(uri)
    if found is None:
        raise InputError(f"{uri}: no model here: neither {WEIGHTS_NAME} with its manifest, nor a whole checkpoint; "
                         "give a run (STORAGE/NAME), a checkpoint or a model folder")  # fmt: skip
    return found[0]
