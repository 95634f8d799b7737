"""SOURCE → shards: `emoji`, `emoji:quick` or `folder:PATH`."""

from __future__ import annotations

from dataclasses import dataclass

from dalle2_train import storage
from dalle2_train.data.manifest import ShardManifest
from dalle2_train.data.progress import Progress
from dalle2_train.data.sources import emoji, folder
from dalle2_train.data.writer import finished, write_shards
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class IngestResult:
    """What lies at `uri` now; `skipped` when it was whole already."""

    uri: str
    num_shards: int
    num_samples: int
    splits: dict[str, int]
    skipped: bool


def ingest(source: str, to: str, progress: Progress | None = None) -> IngestResult:
    """Makes shards of `source` in the folder `to`. An unknown source or broken input: InputError, nothing written.

    progress: hears of the samples done; by default stderr does.
    """
    if source in ("emoji", "emoji:quick"):
        return ingest_emoji(to, variant=source, progress=progress)
    kind, _, path = source.partition(":")
    if kind == "folder" and path:
        return ingest_folder(path, to, progress=progress)
    raise InputError(f"source {source!r} is not known; give emoji, emoji:quick or folder:PATH")


def ingest_emoji(to: str, *, variant: str = "emoji", progress: Progress | None = None) -> IngestResult:
    """The emoji set; `variant` is "emoji" (7,906 pictures) or "emoji:quick"."""
    identity = emoji.source(variant)
    if (found := finished(to, identity)) is not None:
        return _result(to, found, skipped=True)
    storage.check_writable(to)
    return _result(to, write_shards(emoji.records(variant), to, identity, progress=progress))


def ingest_folder(path: str, to: str, *, progress: Progress | None = None) -> IngestResult:
    """The pictures and captions of a folder; see `folder`."""
    pairs = folder.pairs(path)
    identity = folder.source(pairs)
    if (found := finished(to, identity)) is not None:
        return _result(to, found, skipped=True)
    storage.check_writable(to)
    return _result(to, write_shards(folder.records(pairs), to, identity, progress=progress))


def _result(to: str, manifest: ShardManifest, skipped: bool = False) -> IngestResult:
    return IngestResult(to, len(manifest.shards), manifest.num_samples, manifest.count(), skipped)
