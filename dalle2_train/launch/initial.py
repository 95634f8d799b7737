"""The weights that a training begins with: where they are, what they were made with, and whether they fit."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from safetensors.torch import save
from torch import Tensor, nn

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, FileEntry, ModelManifest, model_digest, open_model
from dalle2_train.checkpoints.manifest import has_manifest, read_manifest
from dalle2_train.checkpoints.misfits import describe_misfits
from dalle2_train.checkpoints.model import WEIGHTS_NAME, resolve_model
from dalle2_train.config import to_dict
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError
from dalle2_train.export.clip_folder import read_clip
from dalle2_train.export.diffusers_names import INDEX
from dalle2_train.export.import_folder import local_pipeline
from dalle2_train.export.unclip_folder import kinds_in, read_part
from dalle2_train.generation.folders import RELEASE_MANIFEST
from dalle2_train.networks.text_projection import plain_state

# They change what a network computes, and no weight's shape tells of them.
_SHAPELESS = ("num_heads", "head_dim", "num_groups")
# Of these a fine-tuning may choose its own.
_FREE = ("dropout", "image_size", "low_size", "high_size")


class Initial(NamedTuple):
    """Weights to begin with, by the network's names."""

    manifest: ModelManifest
    state: dict[str, Tensor]


def place_of(uri: str, family: str) -> str:
    """The folder that `uri` means to a training of this family: of a release, the part's own.

    Raises InputError where nothing is there, or no such part.
    """
    if not storage.exists(uri):
        raise InputError(f"--init-from {uri}: there is no such folder; check the path")
    if not storage.exists(storage.join(uri, RELEASE_MANIFEST)):
        return uri
    place = storage.join(uri, family)
    if not storage.exists(place):
        raise InputError(
            f"--init-from {uri}: this release has no {family}; give one that has, or a model folder"
        )
    return place


def initial_digest(uri: str, family: str) -> str:
    """What a manifest's `init_from` says of `uri`: the digest of the model, or a CLIP folder's fingerprint."""
    place = place_of(uri, family)
    if family == "clip":
        return _clip_digest(place)
    if is_pipeline(place):
        return model_digest(_of_pipeline(place, family).manifest)
    return model_digest(read_manifest(resolve_model(place)))


def _clip_digest(place: str) -> str:
    """Of a CLIP's run its model's digest, of any other CLIP folder its fingerprint."""
    if has_manifest(place) or has_manifest(storage.join(place, "model")):
        return model_digest(read_manifest(resolve_model(place)))
    return load_clip(place).fingerprint


def is_pipeline(uri: str) -> bool:
    """Is `uri` a folder that diffusers wrote?"""
    return storage.exists(storage.join(uri, INDEX))


def open_initial(uri: str, family: str) -> Initial:
    """The weights at `uri`: a run's, a checkpoint's, a model folder's, a release's or a diffusers unCLIP folder's.

    Raises InputError where they are of another kind, RefusedError where they are damaged.
    """
    place = place_of(uri, family)
    if is_pipeline(place):
        return _of_pipeline(place, family)
    manifest, state = open_model(place)
    if manifest.kind != family:
        raise InputError(
            f"--init-from {uri}: it is a {manifest.kind}, the recipe trains a {family}; give a {family}"
        )
    return Initial(manifest, state)


def _of_pipeline(uri: str, family: str) -> Initial:
    """As importing it would write it."""
    with local_pipeline(uri) as folder:
        if family not in kinds_in(folder):
            raise InputError(f"--init-from {uri}: this diffusers folder has no {family}, only a "
                             f"{', '.join(kinds_in(folder))}; give one that has")  # fmt: skip
        found = read_part(folder, family)
        state = {name: value.clone() for name, value in found.state.items()}
        written = save(state)
        files = {WEIGHTS_NAME: FileEntry(storage.sha256_bytes(written), len(written))}
        clip = None
        if family != "upsampler":
            with storage.local_staging() as scratch:
                clip = ClipReference(uri, read_clip(folder, uri, scratch).fingerprint)
    return Initial(replace(found.manifest, files=files, clip=clip), state)


def check_initial(
    uri: str, initial: Initial, network: nn.Module, config: Any, clip: ClipEncoder | None
) -> None:
    """Raises InputError that says all of why `initial` does not fit `network` (maybe on the meta device), and a remedy.

    config: the network's; clip: the one that made the embeddings, for families that have any.
    """
    made_with = initial.manifest.clip
    if clip is not None and made_with is not None and not clip.answers_to(made_with.fingerprint):
        raise InputError(
            f"--init-from {uri}: it was trained with the CLIP {made_with.fingerprint}, the embeddings are of "
            f"{clip.fingerprint}; embed with that CLIP ({made_with.uri}), or begin anew"
        )
    misfits = describe_misfits(plain_state(network.state_dict()), plain_state(initial.state))
    there, here = initial.manifest.config.get("network", {}), to_dict(config)
    shapeless = {
        key: value for key, value in _differing(there, here).items() if key.rpartition(".")[2] in _SHAPELESS
    }
    if misfits or shapeless:
        told = [misfits] if misfits else []
        told += [f"{key} is {value} there" for key, value in shapeless.items()]
        raise InputError(f"--init-from {uri}: its weights do not fit the recipe's model ({'; '.join(told)}); "
                         f"{_remedy(_differing(there, here))}")  # fmt: skip


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key → the value `there`, of all that `here` has otherwise."""
    found: dict[str, Any] = {}
    for key, value in there.items():
        other = here.get(key)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found |= _differing(value, other, f"{path}{key}.")
        elif key in here and key not in _FREE and _plain(value) != _plain(other):
            found[path + key] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _remedy(differing: Mapping[str, Any]) -> str:
    settings = " ".join(f"--set model.network.{key}={_yaml(value)}" for key, value in differing.items())
    return f"make it the same with {settings}" if settings else "use the recipe it was trained with"


def _yaml(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
