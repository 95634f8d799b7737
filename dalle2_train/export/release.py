"""Our release: one folder of safetensors with all parts of an unCLIP, described and digested by its unclip.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, model_digest
from dalle2_train.checkpoints.manifest import publish_manifest, read_manifest
from dalle2_train.encoders.clip import save_clip
from dalle2_train.encoders.loading import load_clip
from dalle2_train.export.staging import check_free, file_names, refuse_damage, staged
from dalle2_train.generation.direct import DirectModel
from dalle2_train.generation.drawing import load_model
from dalle2_train.generation.load import RELEASE_MANIFEST, TrainedPart, Unclip

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
    if not _holds(to, model):
        check_free(to)
        with staged(to, last=RELEASE_MANIFEST) as folder:
            _write(model, folder)
    text = storage.read_bytes(storage.join(to, RELEASE_MANIFEST))
    return Release(
        path=storage.absolute(to),
        digest=storage.sha256_bytes(text),
        models=model_digests(model),
        num_bytes=sum(storage.size(file) for file in storage.list_files(to)),
    )


def model_digests(model: Unclip | DirectModel) -> dict[str, str]:
    """Stage → digest of the model that was loaded; the CLIP's is its fingerprint."""
    return {"clip": model.clip.fingerprint} | {
        stage: model_digest(part.manifest) for stage, part in model.parts.items()
    }


def _holds(to: str, model: Unclip | DirectModel) -> bool:
    """Is a whole release of these models at `to`?"""
    uri = storage.join(to, RELEASE_MANIFEST)
    if not storage.exists(uri):
        return False
    described = storage.read_json(uri)
    if not isinstance(described, dict) or described.get("models") != model_digests(model):
        return False
    refuse_damage(to, {name: entry["sha256"] for name, entry in described["files"].items()})
    released = {stage: read_manifest(storage.join(to, stage)).eps_statistics for stage in model.parts}
    return released == {stage: part.manifest.eps_statistics for stage, part in model.parts.items()}


def _write(model: Unclip | DirectModel, folder: Path) -> None:
    save_clip(model.clip.model, model.clip.tokenizer, folder / "clip")
    # A CLIP with pixel statistics that save_clip cannot write would be another CLIP.
    load_clip(str(folder / "clip"), model.clip.fingerprint)
    for stage, part in model.parts.items():
        _write_part(part, folder / stage)
    storage.publish_json(str(folder / RELEASE_MANIFEST), _describe(model, folder))


def _write_part(part: TrainedPart, folder: Path) -> None:
    """A model folder such as training leaves behind."""
    folder.mkdir()
    weights = folder / WEIGHTS
    state = part.network.state_dict()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
    entry = FileEntry(storage.sha256_file(weights), weights.stat().st_size)
    publish_manifest(str(folder), replace(part.manifest, files={WEIGHTS: entry}, order=None))


def _describe(model: Unclip | DirectModel, folder: Path) -> dict[str, Any]:
    """unclip.json: nothing in it depends on when or where the release is written."""
    files = {
        name: asdict(FileEntry(storage.sha256_file(folder / name), (folder / name).stat().st_size))
        for name in file_names(folder)
    }
    manifests = {stage: asdict(part.manifest) for stage, part in model.parts.items()}
    return {
        "format_version": FORMAT_VERSION,
        "models": model_digests(model),
        "manifests": manifests,
        "files": files,
    }
