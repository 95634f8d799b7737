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
from dalle2_train.generation.load import RELEASE_MANIFEST, Part, Unclip, load_unclip

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
    """Writes clip/, prior/, decoder/, upsampler/ and unclip.json to the folder or URI `to`.

    The folder is a MODEL of its own: `load_unclip([to])` opens it, and so does each part's subfolder. The same model
    folders give the same bytes. A `to` that holds the release of these very models is left as it is.
    Errors: InputError as `load_unclip`, or when something else is at `to`; RefusedError for damaged files, there too.
    """
    unclip = load_unclip(models, clip=clip)
    if not _holds(to, unclip):
        check_free(to)
        with staged(to, last=RELEASE_MANIFEST) as folder:
            _write(unclip, folder)
    text = storage.read_bytes(storage.join(to, RELEASE_MANIFEST))
    return Release(
        path=storage.absolute(to),
        digest=storage.sha256_bytes(text),
        models=model_digests(unclip),
        num_bytes=sum(storage.size(file) for file in storage.list_files(to)),
    )


def model_digests(unclip: Unclip) -> dict[str, str]:
    """kind → digest of the model that was loaded; the CLIP's is its fingerprint."""
    return {"clip": unclip.clip.fingerprint} | {
        kind: model_digest(part.manifest) for kind, part in diffusion_parts(unclip).items()
    }


def diffusion_parts(unclip: Unclip) -> dict[str, Part]:
    """The parts that are there, by kind."""
    parts = {"prior": unclip.prior, "decoder": unclip.decoder, "upsampler": unclip.upsampler}
    return {kind: part for kind, part in parts.items() if part is not None}


def _holds(to: str, unclip: Unclip) -> bool:
    """Is a whole release of these models at `to`?"""
    uri = storage.join(to, RELEASE_MANIFEST)
    if not storage.exists(uri):
        return False
    described = storage.read_json(uri)
    if not isinstance(described, dict) or described.get("models") != model_digests(unclip):
        return False
    refuse_damage(to, {name: entry["sha256"] for name, entry in described["files"].items()})
    released = read_manifest(storage.join(to, "prior"))
    return released.eps_statistics == unclip.prior.manifest.eps_statistics


def _write(unclip: Unclip, folder: Path) -> None:
    save_clip(unclip.clip.model, unclip.clip.tokenizer, folder / "clip")
    # A CLIP with pixel statistics that save_clip cannot write would be another CLIP.
    load_clip(str(folder / "clip"), unclip.clip.fingerprint)
    for kind, part in diffusion_parts(unclip).items():
        _write_part(part, folder / kind)
    storage.publish_json(str(folder / RELEASE_MANIFEST), _describe(unclip, folder))


def _write_part(part: Part, folder: Path) -> None:
    """A model folder such as training leaves behind."""
    folder.mkdir()
    weights = folder / WEIGHTS
    state = part.network.state_dict()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, weights)
    entry = FileEntry(storage.sha256_file(weights), weights.stat().st_size)
    publish_manifest(str(folder), replace(part.manifest, files={WEIGHTS: entry}, order=None))


def _describe(unclip: Unclip, folder: Path) -> dict[str, Any]:
    """unclip.json: nothing in it depends on when or where the release is written."""
    files = {
        name: asdict(FileEntry(storage.sha256_file(folder / name), (folder / name).stat().st_size))
        for name in file_names(folder)
    }
    manifests = {kind: asdict(part.manifest) for kind, part in diffusion_parts(unclip).items()}
    return {
        "format_version": FORMAT_VERSION,
        "models": model_digests(unclip),
        "manifests": manifests,
        "files": files,
    }
