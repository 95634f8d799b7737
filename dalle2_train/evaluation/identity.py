"""One digest for what was evaluated, so that a report cannot vouch for another model."""

import hashlib
import json
from collections.abc import Callable, Sequence

from dalle2_train import storage
from dalle2_train.checkpoints.consolidate import verified
from dalle2_train.checkpoints.manifest import ModelManifest, model_digest, read_manifest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.generation.folders import is_clip_folder, is_release, release_files, verify_release


def verified_digest(models: str | Sequence[str]) -> str:
    """The digest of a run, checkpoint, model folder or release folder, after every file in it was verified.

    Of several models, one digest that does not depend on their order, nor on a CLIP among them: the others name theirs.
    InputError where nothing is there, RefusedError where a file is damaged.
    """
    return _of_all([models] if isinstance(models, str) else models, verify_release, verified)


def claimed_digest(models: Sequence[str]) -> str:
    """`verified_digest`, of what the manifests say: no other file is read. InputError where nothing is there."""
    return _of_all(models, release_files, read_manifest)


def _of_all(
    models: Sequence[str],
    files_of_release: Callable[[str], dict[str, str]],
    manifest_of: Callable[[str], ModelManifest],
) -> str:
    def digest(uri: str) -> str:
        if is_release(uri):
            return hashlib.sha256(json.dumps(files_of_release(uri), sort_keys=True).encode()).hexdigest()
        return model_digest(manifest_of(resolve_model(uri)))

    parts = [uri for uri in models if not is_clip_folder(uri)] or models
    digests = sorted(map(digest, parts))
    return digests[0] if len(digests) == 1 else storage.sha256_bytes("\n".join(digests).encode())
