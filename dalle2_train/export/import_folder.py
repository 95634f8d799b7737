"""A diffusers unCLIP folder → a release folder of ours, to fine-tune, evaluate and sample from."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints import ClipReference, ModelManifest, model_digest
from dalle2_train.export.clip_folder import read_clip
from dalle2_train.export.release import (
    Release,
    holds,
    publish_release,
    release_at,
    write_clip,
    write_last,
    write_model,
)
from dalle2_train.export.staging import check_free, staged
from dalle2_train.export.unclip_folder import Weights, kinds_in, read_part
from dalle2_train.export.upload import file_names, finish
from dalle2_train.generation.folders import RELEASE_MANIFEST

# Neither pickles nor the half-precision copies that hubs keep beside the weights.
_WANTED = re.compile(r"(?!.*\.fp16[.-]).*\.(json|txt|safetensors)")


def import_diffusers(source: str, to: str) -> Release:
    """Writes the pipeline at `source` (a folder or URI) as the release folder `to` (another).

    All of it: the prior (of a text-to-image folder), the decoder with its text_proj, the upsampler with the network of
    its last step where that is another one, and the CLIP, of which a text-to-image folder holds the text half alone.
    A `to` that holds the import of these very files is left as it is.
    Errors: InputError for a folder that is no whole unCLIP, a setting that ours does not have, weights that do not fit,
    or something else at `to`, where nothing is written then; RefusedError where an earlier import is damaged.
    """
    with local_pipeline(source) as folder:
        about = _about(folder)
        if holds(to, "imported", about["imported"]):
            finish(to)
        else:
            check_free(to, about)
            with staged(to, last=RELEASE_MANIFEST, about=about) as release:
                _write(folder, source, release, to, about["imported"])
    return release_at(to)


def check_import(source: str, to: str) -> list[str]:
    """Reads all of `source` and writes nothing; the kinds of its models. Errors: as `import_diffusers`."""
    with local_pipeline(source) as folder, storage.local_staging() as scratch:
        about = _about(folder)
        if not holds(to, "imported", about["imported"]):
            check_free(to, about)
        read_clip(folder, source, scratch)
        kinds = kinds_in(folder)
        for kind in (*kinds, "last"):
            read_part(folder, kind)
    return ["clip", *kinds]


@contextlib.contextmanager
def local_pipeline(source: str) -> Iterator[Path]:
    """A folder on this machine with the files of a diffusers pipeline that are ever read here."""
    local = storage.local_path(source)
    if local is not None:
        yield local
        return
    with storage.local_staging() as folder:
        home = storage.absolute(source).rstrip("/") + "/"
        names = [uri.removeprefix(home) for uri in storage.list_files(source)]
        for name in _wanted(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            storage.download(storage.join(source, name), folder / name)
        yield folder


def _about(folder: Path) -> dict[str, dict[str, str]]:
    """What tells an import from others: file → SHA-256."""
    return {"imported": {name: storage.sha256_file(folder / name) for name in _wanted(file_names(folder))}}


def _wanted(names: list[str]) -> list[str]:
    return sorted(name for name in names if _WANTED.fullmatch(name))


def _write(folder: Path, source: str, release: Path, to: str, digests: Mapping[str, str]) -> None:
    with storage.local_staging() as scratch:
        clip = read_clip(folder, source, scratch)
    write_clip(clip, release / "clip")
    reference = ClipReference(storage.join(to, "clip"), clip.fingerprint)
    manifests: dict[str, ModelManifest] = {}
    image_embed_norm: float | None = None
    for kind in kinds_in(folder):
        # One after the other: all of Karlo's in float32 are ten gigabytes.
        weights, more = read_part(folder, kind), {}
        if kind == "prior":
            image_embed_norm = _image_embed_norm(weights.state)
        if kind == "upsampler" and not _same(last := read_part(folder, "last"), weights):
            more = write_last(last.manifest, last.state, release / kind)
        manifest = weights.manifest
        if kind != "upsampler":
            manifest = replace(manifest, clip=reference, image_embed_norm=image_embed_norm)
        manifests[kind] = write_model(manifest, weights.state, release / kind, more)
    models = {"clip": clip.fingerprint} | {kind: model_digest(found) for kind, found in manifests.items()}
    publish_release(release, models, manifests, imported=dict(digests))


def _image_embed_norm(prior: Mapping[str, Tensor]) -> float | None:
    """The root of the mean square length of the embeddings whose mean and deviation (1, E) the prior normalises by.

    None where it knows none: a mean of zeros is that of a scale (the paper's), or of what nobody has measured.
    """
    mean, std = (prior[name].double() for name in ("clip_mean", "clip_std"))
    return float((mean.square() + std.square()).sum().sqrt()) if mean.any() and std.any() else None


def _same(one: Weights, other: Weights) -> bool:
    return one.manifest == other.manifest and all(
        value.equal(other.state[name]) for name, value in one.state.items()
    )
