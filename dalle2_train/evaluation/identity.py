"""One digest for what was evaluated, so that a report cannot vouch for another model."""

import hashlib
import json
from collections.abc import Sequence

from dalle2_train import storage
from dalle2_train.checkpoints.consolidate import verified
from dalle2_train.checkpoints.manifest import model_digest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.generation.folders import is_release, verify_release


def verified_digest(models: str | Sequence[str]) -> str:
    """The digest of a run, checkpoint, model folder or release folder, after every file in it was verified.

    Of several models, one digest that does not depend on their order. InputError where nothing is there,
    RefusedError where a file is damaged.
    """
    uris = [models] if isinstance(models, str) else list(models)
    digests = sorted(_digest(uri) for uri in uris)
    return digests[0] if len(digests) == 1 else storage.sha256_bytes("\n".join(digests).encode())


def _digest(uri: str) -> str:
    if is_release(uri):
        return hashlib.sha256(json.dumps(verify_release(uri), sort_keys=True).encode()).hexdigest()
    return model_digest(verified(resolve_model(uri)))
