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
from dalle2_train.data import manifest as manifests
from dalle2_train.data.index import read_shard, stage_index
from dalle2_train.data.manifest import Shard, ShardManifest
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.errors import InputError

_UNDER_WAY = "_ingest.json"


class Record(NamedTuple):
    """A sample on its way into a shard: encoded picture, its extension ("png", "jpg"), caption, json fields."""

    image: bytes
    extension: str
    caption: str
    fields: dict[str, Any]
    width: int
    height: int


def finished(to: str, source: dict[str, Any]) -> ShardManifest | None:
    """The manifest at `to` when it is whole and came from `source`; None when the place is free.

    A place that holds something else: InputError.
    """
    if manifests.has_manifest(to):
        found = manifests.load(to)
        if found.source != source:
            raise InputError(f"{to}: holds shards of another source ({found.source}); give an empty folder")
        return found
    under_way = storage.join(to, _UNDER_WAY)
    ours = storage.exists(under_way) and storage.read_json(under_way) == source
    if not ours and storage.list_files(to, ".tar"):
        raise InputError(
            f"{to}: already holds shards without a manifest; index them, or give an empty folder"
        )
    return None


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
        storage.publish_json(storage.join(to, _UNDER_WAY), source)
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            storage.publish_file(file, storage.join(to, file.relative_to(folder).as_posix()))
    manifest = ShardManifest(shards, source)
    manifests.publish(manifest, to)
    storage.remove(storage.join(to, _UNDER_WAY))
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
    stage_index(folder, shard, index)
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
