"""One digest for what was evaluated, so that a report cannot vouch for another model."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from dalle2_train import storage
from dalle2_train.checkpoints.consolidate import verified
from dalle2_train.checkpoints.manifest import model_digest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.errors import InputError, RefusedError

RELEASE_MANIFEST = "unclip.json"


def verified_digest(models: str | Sequence[str]) -> str:
    """The digest of a run, checkpoint, model folder or release folder, after every file in it was verified.

    Of several models, one digest that does not depend on their order. InputError where nothing is there,
    RefusedError where a file is damaged.
    """
    uris = [models] if isinstance(models, str) else list(models)
    digests = sorted(_digest(uri) for uri in uris)
    return digests[0] if len(digests) == 1 else storage.sha256_bytes("\n".join(digests).encode())


def _digest(uri: str) -> str:
    if storage.exists(storage.join(uri, RELEASE_MANIFEST)):
        return _release_digest(uri)
    return model_digest(verified(resolve_model(uri)))


def _release_digest(uri: str) -> str:
    described = storage.read_json(storage.join(uri, RELEASE_MANIFEST))
    files = described.get("files") if isinstance(described, Mapping) else None
    if not isinstance(files, Mapping) or not files:
        raise InputError(f"{uri}: {RELEASE_MANIFEST} names no files; export the release again")
    digests = {str(name): str(entry.get("sha256")) for name, entry in files.items()}
    for name, expected in digests.items():
        if storage.sha256_file(storage.join(uri, name)) != expected:
            raise RefusedError(
                f"{uri}: {name} is not the file that was released; restore it, or remove the folder and export again"
            )
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
