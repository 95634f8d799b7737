"""SOURCE → shards: `emoji`, `emoji:quick`, `emoji:outlined:PIXELS`, `folder:PATH` or `parquet:URI`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from dalle2_train import storage
from dalle2_train.data.progress import Progress
from dalle2_train.data.shards.manifest import ShardManifest
from dalle2_train.data.shards.writer import finished, write_shards
from dalle2_train.data.sources import emoji, folder, img2dataset, parquet
from dalle2_train.errors import InputError

KINDS = "emoji, emoji:quick, emoji:outlined:PIXELS, folder:PATH or parquet:URI"


@dataclass(frozen=True)
class IngestResult:
    """What lies at `uri` now; `skipped` when it was whole already."""

    uri: str
    num_shards: int
    num_samples: int
    splits: dict[str, int]
    skipped: bool
    statuses: dict[str, int] = field(default_factory=dict)
    """Of a list of addresses: what became of each, in img2dataset's words → how many."""


class _Source(NamedTuple):
    """Something to be ingested that was looked at, but not yet read."""

    identity: dict[str, Any]
    write: Callable[[str, Progress | None], ShardManifest]
    check: Callable[[], None]
    """Reads it as far as that is possible without writing anything. Broken: InputError."""
    statuses: Callable[[str], dict[str, int]] = lambda to: {}


def ingest(
    source: str, to: str, progress: Progress | None = None, *, image_size: int | None = None
) -> IngestResult:
    """Makes shards of `source` in the folder `to`. An unknown source or broken input: InputError, nothing written.

    image_size: pixels of the shorter side, to which pictures of a parquet: source are reduced; None: 256.
    progress: hears of the samples done; by default stderr does.
    """
    found = _open(source, image_size)
    if (manifest := finished(to, found.identity)) is not None:
        return _result(to, manifest, found, skipped=True)
    storage.check_could_write(to)
    return _result(to, found.write(to, progress), found)


def check_ingest(source: str, to: str, *, image_size: int | None = None) -> bool:
    """Would `ingest` do it? Reads the source and looks at the place, writes nothing. What is amiss: InputError.

    Returns whether the shards are there already.
    """
    found = _open(source, image_size)
    if finished(to, found.identity) is not None:
        return True
    found.check()
    storage.check_could_write(to)
    return False


def _open(source: str, image_size: int | None) -> _Source:
    kind, _, path = source.partition(":")
    if kind == "parquet" and path:
        return _parquet(path, image_size)
    if image_size is not None:
        raise InputError(f"--image-size {image_size} is for parquet: sources; {source} is taken as it is")
    if (variant := emoji.variant_of(source)) is not None:
        return _Source(emoji.source(variant), partial(_write_emoji, variant), lambda: _check_emoji(variant))
    if kind == "folder" and path:
        return _folder(path)
    raise InputError(f"source {source!r} is not known; give {KINDS}")


def _write_emoji(variant: emoji.Variant, to: str, progress: Progress | None) -> ShardManifest:
    return write_shards(emoji.records(variant), to, emoji.source(variant), progress=progress)


def _check_emoji(variant: emoji.Variant) -> None:
    next(emoji.records(variant))


def _folder(path: str) -> _Source:
    pairs = folder.pairs(path)
    identity = folder.source(pairs)

    def write(to: str, progress: Progress | None) -> ShardManifest:
        return write_shards(folder.records(pairs), to, identity, progress=progress)

    return _Source(identity, write, lambda: folder.check(pairs))


def _parquet(uri: str, image_size: int | None) -> _Source:
    listed = parquet.open_list(uri)
    identity = parquet.source(listed, parquet.IMAGE_SIZE if image_size is None else image_size)
    return _Source(
        identity,
        lambda to, progress: parquet.write(listed, to, identity, progress),
        _check_parquet,
        parquet.statuses,
    )


def _check_parquet() -> None:
    img2dataset.find_program()


def _result(to: str, manifest: ShardManifest, source: _Source, skipped: bool = False) -> IngestResult:
    return IngestResult(
        to, len(manifest.shards), manifest.num_samples, manifest.count(), skipped, source.statuses(to)
    )
