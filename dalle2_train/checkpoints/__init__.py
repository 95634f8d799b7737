"""What a training run leaves behind: sharded checkpoints, released weights, and a manifest that says what is whole."""

from dalle2_train.checkpoints.consolidate import consolidate
from dalle2_train.checkpoints.manifest import (
    ClipReference,
    DataReference,
    FileEntry,
    ModelManifest,
    model_digest,
    weights_digest,
)
from dalle2_train.checkpoints.model import open_model

__all__ = [
    "ClipReference",
    "DataReference",
    "FileEntry",
    "ModelManifest",
    "consolidate",
    "model_digest",
    "open_model",
    "weights_digest",
]
