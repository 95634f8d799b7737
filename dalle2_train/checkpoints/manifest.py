"""The manifest of a checkpoint or a model: what it is, what it came from, and the digest of every file in it.

It is published after everything it names: a folder without one is unfinished, whatever else lies in it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dalle2_train import config, storage
from dalle2_train.errors import InputError

FORMAT_VERSION = 3
"""2: `model_digest` is of image_embed_norm too. A manifest of format 1 keeps the digest that reports and registries
have of it. 3: a checkpoint says its loss, and a manifest its own digest."""
MANIFEST_NAME = "manifest.json"
_SELF = "sha256"
LAST = "last"
"""In an upsampler's folder, the model folder of the network of its last step, where that is another one."""


@dataclass(frozen=True)
class FileEntry:
    """One file's SHA-256 (hexadecimal) and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class ClipReference:
    """The CLIP model whose embeddings a part was trained on."""

    uri: str
    fingerprint: str


@dataclass(frozen=True)
class DataReference:
    """The shards a model was trained on, and the digest of their manifest."""

    uri: str
    digest: str


@dataclass(frozen=True)
class EpsStatistics:
    """How well a model tells eps from x_t, over data: what Analytic-DPM samples by (`generation.calibrate`)."""

    timesteps: tuple[int, ...]
    """Where it was estimated, rising."""
    mean_squared_eps: tuple[float, ...]
    """There, the mean square of a coordinate of the predicted eps; 1 less the part of eps that is not told."""
    data_variance: float
    """Mean variance of a coordinate of x_0."""
    num_samples: int


@dataclass(frozen=True)
class ModelManifest:
    """What a checkpoint or model folder holds."""

    kind: str
    """The family: clip, prior, decoder, …"""
    config: dict[str, Any]
    """The family's model config: enough to build the network anew."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The whole resolved recipe."""
    profile: str | None = None
    clip: ClipReference | None = None
    data: DataReference | None = None
    image_embed_norm: float | None = None
    """Mean L2 norm of the image embeddings that it learned from; of an import, by its prior's statistics, the root of
    the mean square. None where there were none, or where nobody knows."""
    init_from: str | None = None
    """`weights_digest` of the model whose weights the run began with."""
    step: int = 0
    """Updates done."""
    loss: float | None = None
    """Mean over the steps since the checkpoint before; None in a model folder, and in a checkpoint of format 2."""
    world_size: int = 1
    order: dict[str, Any] | None = None
    """Where the data stream stands, merged over ranks."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """By name relative to the folder."""
    eps_statistics: EpsStatistics | None = None
    """Of a prior that was calibrated for Analytic-DPM."""
    created: str = ""
    """UTC, ISO 8601."""
    format_version: int = FORMAT_VERSION

    @property
    def is_sharded(self) -> bool:
        """True for a checkpoint as the ranks wrote it, False for released weights."""
        return ".metadata" in self.files


def model_digest(manifest: ModelManifest) -> str:
    """One SHA-256 for kind, config, every file and the statistics that sampling reads: equal ones, the same model."""
    statistics: dict[str, Any] = {}
    if manifest.eps_statistics is not None:
        statistics["eps_statistics"] = asdict(manifest.eps_statistics)
    if manifest.format_version >= 2:
        statistics["image_embed_norm"] = manifest.image_embed_norm
    return _digest(manifest, list(manifest.files), **statistics)


def weights_digest(manifest: ModelManifest) -> str:
    """One SHA-256 for what a training finds that begins with this model: kind, config and its network's weights."""
    return _digest(manifest, [name for name in manifest.files if not name.startswith(f"{LAST}/")])


def _digest(manifest: ModelManifest, names: list[str], **more: Any) -> str:
    files = {name: manifest.files[name].sha256 for name in sorted(names)}
    identity = {"kind": manifest.kind, "config": manifest.config, "files": files, **more}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def publish_manifest(folder: str, manifest: ModelManifest) -> None:
    """Make the folder count as whole. Everything the manifest names is already there."""
    storage.publish_bytes(storage.join(folder, MANIFEST_NAME), _text(asdict(manifest)))


def _text(plain: Mapping[str, Any]) -> bytes:
    """The only text that says `plain`, its own digest with it: a byte of it that changes is found out."""
    inside = {name: value for name, value in plain.items() if name != _SELF}
    digest = hashlib.sha256(json.dumps(inside).encode()).hexdigest()
    return (json.dumps({**inside, _SELF: digest}, indent=1, allow_nan=False) + "\n").encode()


def read_manifest(folder: str) -> ModelManifest:
    """Raises InputError where there is none, where it is damaged, or where it is of a newer format."""
    uri = storage.join(folder, MANIFEST_NAME)
    text = storage.read_bytes(uri)
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{uri}: damaged, no JSON any more ({error}); take an older checkpoint") from error
    if not isinstance(found, Mapping) or not isinstance(found.get("format_version"), int):
        raise InputError(f"{uri}: not a model's manifest; give a run, a checkpoint or a model folder")
    if found["format_version"] > FORMAT_VERSION:
        raise InputError(f"{uri}: format {found['format_version']}, but this version reads up to {FORMAT_VERSION}; "
                         "upgrade dalle2-train")  # fmt: skip
    if (found["format_version"] >= 3 or _SELF in found) and _text(found) != text:
        raise InputError(f"{uri}: damaged, it is not what was written; take an older checkpoint")
    told = {name: value for name, value in found.items() if name != _SELF}
    return config.build(ModelManifest, told, where=uri)


def has_manifest(folder: str) -> bool:
    """True where a folder is committed."""
    return storage.exists(storage.join(folder, MANIFEST_NAME))


def find_faults(folder: str, manifest: ModelManifest, names: list[str] | None = None) -> list[str]:
    """Which of the named files (all, by default) are missing or not what was written, in words."""
    faults = []
    for name in manifest.files if names is None else names:
        uri, entry = storage.join(folder, name), manifest.files[name]
        if not storage.exists(uri):
            faults.append(f"{name} is missing")
        elif storage.size(uri) != entry.size:
            faults.append(f"{name} has {storage.size(uri)} bytes instead of {entry.size}")
        elif storage.sha256_file(uri) != entry.sha256:
            faults.append(f"{name} is damaged: its digest is not the one that was written")
    return faults
