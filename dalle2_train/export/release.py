"""Our release: one folder of safetensors with all parts of an unCLIP, described and digested by its unclip.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, ModelManifest, model_digest
from dalle2_train.checkpoints.manifest import LAST, publish_manifest
from dalle2_train.config import to_dict
from dalle2_train.encoders.clip import save_clip
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip
from dalle2_train.export.staging import check_free, confirm, staged
from dalle2_train.export.upload import file_names, finish
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import load_model
from dalle2_train.generation.folders import RELEASE_MANIFEST, release_files
from dalle2_train.generation.unclip import Part, TrainedPart, Unclip

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Release:
    """A released folder."""

    path: str
    digest: str
    """SHA-256 of unclip.json, which holds the SHA-256 of every other file: it names the whole unCLIP."""
    models: Mapping[str, str]
    """kind → digest of the model that was released; the CLIP's is its fingerprint."""
    num_bytes: int


def export_release(models: Sequence[str], to: str, *, clip: str | None = None) -> Release:
    """Writes clip/, prior/ or ar_prior/, decoder/, upsampler/ and second_upsampler/ (those that there are) and
    unclip.json to the folder or URI `to`; of a direct baseline clip/, direct/ and unclip.json.

    The folder is a MODEL of its own: `load_model([to])` opens it, and so does each part's subfolder. The same model
    folders give the same bytes. A `to` that holds the release of these very models is left as it is.
    Errors: InputError as `load_unclip`, or when something else is at `to`; RefusedError for damaged files, there too.
    """
    model = load_model(models, clip=clip)
    digests = model_digests(model)
    if is_released(model, to):
        finish(to)
    else:
        with staged(to, last=RELEASE_MANIFEST, about={"models": digests}) as folder:
            write_clip(model.clip, folder / "clip")
            for stage, part in model.parts.items():
                _write_part(part, folder / stage)
            publish_release(folder, digests, {stage: part.manifest for stage, part in model.parts.items()})
    return release_at(to)


def is_released(model: Unclip | DirectModel, to: str) -> bool:
    """Is the release of this very model at `to`? Where not, there is room for it: errors as `export_release`."""
    digests = model_digests(model)
    if holds(to, "models", digests):
        return True
    check_free(to, {"models": digests})
    return False


def release_at(to: str) -> Release:
    """The release that lies whole at `to`."""
    text = storage.read_bytes(storage.join(to, RELEASE_MANIFEST))
    return Release(
        path=storage.absolute(to),
        digest=storage.sha256_bytes(text),
        models=json.loads(text)["models"],
        num_bytes=sum(storage.size(file) for file in storage.list_files(to)),
    )


def model_digests(model: Unclip | DirectModel) -> dict[str, str]:
    """Stage → digest of the model that was loaded; the CLIP's is its fingerprint."""
    return {"clip": model.clip.fingerprint} | {
        stage: model_digest(part.manifest) for stage, part in model.parts.items()
    }


def holds(to: str, key: str, value: Mapping[str, str]) -> bool:
    """Is there a release at `to` whose unclip.json has this value? RefusedError where it is damaged."""
    uri = storage.join(to, RELEASE_MANIFEST)
    if not storage.exists(uri):
        return False
    described = storage.read_json(uri)
    if not isinstance(described, dict) or described.get(key) != value:
        return False
    confirm(to, release_files(to))
    return True


def write_clip(clip: ClipEncoder, folder: Path) -> None:
    """A CLIP folder that answers to the same fingerprint."""
    save_clip(clip.model, clip.tokenizer, folder, clip.pixels)
    load_clip(str(folder), clip.fingerprint)


def write_model(
    manifest: ModelManifest,
    state: Mapping[str, Tensor],
    folder: Path,
    more: Mapping[str, FileEntry] | None = None,
) -> ModelManifest:
    """A model folder such as training leaves behind; `more` files in it are there already. Returns its manifest."""
    folder.mkdir(exist_ok=True)
    weights = folder / WEIGHTS
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
    written = replace(manifest, files={WEIGHTS: entry_of(weights), **(more or {})}, order=None)
    publish_manifest(str(folder), written)
    return written


def write_last(manifest: ModelManifest, state: Mapping[str, Tensor], folder: Path) -> dict[str, FileEntry]:
    """The network of an upsampler's last step, in the upsampler's own folder; returns its files, for `write_model`."""
    folder.mkdir()
    write_model(manifest, state, folder / LAST)
    return {f"{LAST}/{name}": entry_of(folder / LAST / name) for name in file_names(folder / LAST)}


def _write_part(part: TrainedPart, folder: Path) -> None:
    more: dict[str, FileEntry] = {}
    if isinstance(part, Part) and part.last is not None:
        config = part.manifest.config | {"network": to_dict(part.last.config)}
        more = write_last(replace(part.manifest, config=config), part.last.state_dict(), folder)
    write_model(part.manifest, part.network.state_dict(), folder, more)


def publish_release(
    folder: Path, models: Mapping[str, str], manifests: Mapping[str, ModelManifest], **more: object
) -> None:
    """unclip.json, of all files in `folder`: nothing in it depends on when or where the release is written."""
    described: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "models": dict(models),
        "manifests": {kind: asdict(manifest) for kind, manifest in manifests.items()},
        "files": {name: asdict(entry_of(folder / name)) for name in file_names(folder)},
    }
    storage.publish_json(str(folder / RELEASE_MANIFEST), described | more)


def entry_of(file: Path) -> FileEntry:
    """A file's digest and size, for a manifest."""
    return FileEntry(storage.sha256_file(file), file.stat().st_size)
