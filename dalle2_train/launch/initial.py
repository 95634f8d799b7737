"""The weights that a training begins with: where they are, and what they were made with."""

from dataclasses import replace
from typing import NamedTuple

from safetensors.torch import save
from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, FileEntry, ModelManifest, open_model, weights_digest
from dalle2_train.checkpoints.manifest import has_manifest, read_manifest
from dalle2_train.checkpoints.model import WEIGHTS_NAME, resolve_model
from dalle2_train.encoders.loading import load_clip
from dalle2_train.errors import InputError, with_article
from dalle2_train.export.clip_folder import read_clip
from dalle2_train.export.diffusers_names import INDEX
from dalle2_train.export.import_folder import local_pipeline
from dalle2_train.export.unclip_folder import kinds_in, read_part
from dalle2_train.generation.folders import RELEASE_MANIFEST


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
    """What a manifest's `init_from` says of `uri`: the digest of the weights, or a CLIP folder's fingerprint."""
    place = place_of(uri, family)
    if family == "clip":
        return _clip_digest(place)
    if is_pipeline(place):
        return weights_digest(_of_pipeline(place, family).manifest)
    return weights_digest(read_manifest(resolve_model(place)))


def _clip_digest(place: str) -> str:
    """Of a CLIP's run its weights' digest, of any other CLIP folder its fingerprint."""
    if has_manifest(place) or has_manifest(storage.join(place, "model")):
        return weights_digest(read_manifest(resolve_model(place)))
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
            f"--init-from {uri}: it is {with_article(manifest.kind)}, the recipe trains {with_article(family)}; give "
            f"{with_article(family)}"
        )
    return Initial(manifest, state)


def _of_pipeline(uri: str, family: str) -> Initial:
    """As importing it would write it."""
    with local_pipeline(uri) as folder:
        if family not in kinds_in(folder):
            raise InputError(f"--init-from {uri}: this diffusers folder has no {family}, only "
                             f"{' and '.join(kinds_in(folder))}; give one that has")  # fmt: skip
        found = read_part(folder, family)
        state = {name: value.clone() for name, value in found.state.items()}
        written = save(state)
        files = {WEIGHTS_NAME: FileEntry(storage.sha256_bytes(written), len(written))}
        clip = None
        if family != "upsampler":
            with storage.local_staging() as scratch:
                clip = ClipReference(uri, read_clip(folder, uri, scratch).fingerprint)
    return Initial(replace(found.manifest, files=files, clip=clip), state)
