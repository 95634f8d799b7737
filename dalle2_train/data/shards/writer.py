"""Writes records as LAION shards (tar, parquet, stats): staged aside, then published, the manifest last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from webdataset.writer import TarWriter

from dalle2_train import storage
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards import manifest as manifests
from dalle2_train.data.shards.index import publish_index
from dalle2_train.data.shards.manifest import Shard, ShardManifest
from dalle2_train.data.shards.read_shard import read_shard
from dalle2_train.errors import InputError

_UNDER_WAY = "_ingest"  # a folder: img2dataset takes every .json beside its shards for statistics of its own


class Record(NamedTuple):
    """A sample on its way into a shard: encoded picture, its extension ("png", "jpg"), caption, json fields."""

    image: bytes
    extension: str
    caption: str
    fields: dict[str, Any]
    width: int
    height: int


def finished(to: str, source: dict[str, Any]) -> ShardManifest | None:
    """The manifest at `to` when it is whole and came from `source`; None when the place is free, or under way.

    A place that holds something else: InputError.
    """
    found = manifests.load(to) if manifests.has_manifest(to) else None
    if found is not None and found.source == source:
        return found
    under_way = storage.join(to, _UNDER_WAY, "source.json")
    if storage.exists(under_way) and storage.read_json(under_way) == source:
        return None
    if found is not None:
        raise InputError(
            f"{to}: holds shards of another source: {_in_words(found.source)}, not {_in_words(source)}; "
            "give an empty folder, or remove what is there"
        )
    if storage.list_files(to, ".tar"):
        raise InputError(
            f"{to}: already holds shards without a manifest; index them, or give an empty folder"
        )
    return None


def begin(to: str, source: dict[str, Any]) -> None:
    """Says at `to` whose shards are being written there."""
    storage.publish_json(storage.join(to, _UNDER_WAY, "source.json"), source)


def finish(manifest: ShardManifest, to: str) -> None:
    """Publishes the manifest of shards that are all written."""
    manifests.publish(manifest, to)
    storage.remove(storage.join(to, _UNDER_WAY))


def _in_words(source: dict[str, Any]) -> str:
    """Where shards came from, for people: two that differ differ in words."""
    if not source:
        return "shards that were not ingested here"
    kind, about = source.get("kind", "shards"), {name: source[name] for name in source if name != "kind"}
    told = ", ".join(f"{name} {str(about[name])[:60]}" for name in about if not isinstance(about[name], dict))
    packages = ", ".join(
        f"{k} {v}" for found in about.values() if isinstance(found, dict) for k, v in found.items()
    )
    return f"{kind} ({'; '.join(part for part in (told, packages) if part)})"


def write_shards(
    records: Iterable[Record],
    to: str,
    source: dict[str, Any],
    *,
    samples_per_shard: int = 1000,
    progress: Progress | None = None,
) -> ShardManifest:
    """Writes `records` to the folder `to`. An error in the midst of them leaves nothing there.

    progress: hears of the samples done; by default stderr does.
    """
    assert 0 < samples_per_shard <= 10_000, "a key has four digits for the index"
    place = storage.local_path(to)
    with storage.local_staging(place.parent if place else None) as folder:
        shards = tuple(
            _stage(iter(records), folder, samples_per_shard, progress or on_stderr("ingest", "samples"))
        )
        begin(to, source)
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            storage.publish_file(file, storage.join(to, file.relative_to(folder).as_posix()))
    manifest = ShardManifest(shards, source)
    finish(manifest, to)
    return manifest


def _stage(
    records: Iterator[Record], folder: Path, samples_per_shard: int, progress: Progress
) -> Iterator[Shard]:
    done = 0
    while chunk := list(islice(records, samples_per_shard)):
        done += len(chunk)
        yield stage_shard(chunk, folder, number=(done - 1) // samples_per_shard)
        progress(done, None)


def stage_shard(records: list[Record], folder: Path, number: int) -> Shard:
    """One shard's tar, parquet and stats in a local folder."""
    name = f"{number:05d}"
    rows = [_row(f"{name}{i:04d}", record) for i, record in enumerate(records)]
    tar = folder / f"{name}.tar"
    with tar.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
        for row, record in zip(rows, records, strict=True):
            writer.write(
                {
                    "__key__": row["key"],
                    record.extension: record.image,
                    "txt": record.caption.encode(),
                    "json": json.dumps(row, ensure_ascii=False).encode(),
                }
            )
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    stats = {"count": len(rows), "successes": len(rows), "failed_to_download": 0, "failed_to_resize": 0}
    (folder / f"{name}_stats.json").write_text(json.dumps({**stats, "status_dict": {"success": len(rows)}}))
    shard, index = read_shard(tar, tar.name)
    publish_index(str(folder), shard, index)
    return shard


def _row(key: str, record: Record) -> dict[str, Any]:
    """The json of a sample, with img2dataset's names first."""
    return {
        "key": key,
        "caption": record.caption,
        "status": "success",
        "error_message": None,
        "width": record.width,
        "height": record.height,
        "sha256": hashlib.sha256(record.image).hexdigest(),
        "split": "train",
        **record.fields,
    }
