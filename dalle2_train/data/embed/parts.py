"""One part of an embedded set: made, written aside, published, and kept when it is what it would be again."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dalle2_train import storage
from dalle2_train.data.embed.encoding import EmbedConfig, EncodedRows
from dalle2_train.data.embeddings import layout, metadata
from dalle2_train.data.embeddings.columns import RowsWriter, read_header
from dalle2_train.data.embeddings.layout import Part, file_name, part_name
from dalle2_train.data.embeddings.moments import NOTHING, Moments
from dalle2_train.data.embeddings.statistics import moments_of_file
from dalle2_train.data.faults import Fault
from dalle2_train.data.shards.manifest import Shard, ShardManifest, ShardSet
from dalle2_train.data.shards.shard_index import ShardIndex


class EmbedTask(NamedTuple):
    """One shard of the set in `home`, to be embedded into the folder `to`."""

    home: str
    shard: Shard
    to: str
    config: EmbedConfig


class PartDone(NamedTuple):
    """A part that is whole, and the moments of the train split's image embeddings."""

    part: Part
    moments: Moments


class _Staged(NamedTuple):
    """What a part is made of, beside its columns."""

    positions: list[int]
    captions: list[str]
    faults: list[Fault]


Rows = Callable[[ShardSet, EmbedConfig], Iterator[EncodedRows]]
"""What becomes of the only shard of a set: `encoding.encoded`, `in_tars.unpacked`."""


def make_part(task: EmbedTask, rows: Rows) -> PartDone:
    """The part of one shard: made now, unless it is there, whole, and of the same shard and CLIP."""
    part = _kept(task)
    if part is None:
        # A manifest over parts that are being replaced would call a half-made set whole.
        storage.remove(storage.join(task.to, layout.MANIFEST))
        part = _publish(task, rows)
    return PartDone(part, _moments(task, part))


def faults_name(part: str) -> str:
    """The file of the samples that could not be embedded, in the set's folder: a `Fault` as JSON a line."""
    return f"faults/faults_{part}.jsonl"


def _record_uri(task: EmbedTask) -> str:
    return storage.join(task.to, "parts", f"part_{part_name(task.shard.path)}.json")


def _asked(task: EmbedTask) -> dict[str, Any]:
    """What decides the bytes of a part, beside the program."""
    config = dataclasses.asdict(task.config)
    return {"version": layout.FORMAT_VERSION, "source": task.shard.sha256, **config}


def _kept(task: EmbedTask) -> Part | None:
    """The part that an earlier run finished; one whose files have changed since is no more."""
    uri = _record_uri(task)
    if not storage.exists(uri):
        return None
    record = storage.read_json(uri)
    if record["asked"] != _asked(task):
        return None
    part = Part(**record["part"])
    for column, digest in part.files.items():
        file = storage.join(task.to, file_name(column, part.name))
        if not storage.exists(file) or storage.sha256_file(file) != digest:
            return None
    return part


def _publish(task: EmbedTask, rows: Rows) -> Part:
    """Writes the columns of one shard, then the record that says they are whole."""
    name = part_name(task.shard.path)
    shards = ShardSet(task.home, ShardManifest((task.shard,)))
    storage.remove(_record_uri(task))
    with storage.local_staging(storage.local_path(task.to)) as folder:
        staged = _stage_vectors(rows(shards, task.config), folder)
        index = ShardIndex(shards.index(0).table.take(pa.array(staged.positions, pa.int64())))
        (folder / layout.METADATA).write_bytes(metadata.to_bytes(index, staged.captions))
        files = {
            file.name: storage.publish_file(file, storage.join(task.to, file_name(file.name, name)))
            for file in sorted(folder.iterdir())
        }
    _publish_faults(storage.join(task.to, faults_name(name)), staged.faults)
    splits = dict(sorted(Counter(index.splits).items()))
    part = Part(name, len(index), splits, files, len(staged.faults), task.shard.sha256)
    storage.publish_json(_record_uri(task), {"asked": _asked(task), "part": dataclasses.asdict(part)})
    return part


def _stage_vectors(batches: Iterator[EncodedRows], folder: Path) -> _Staged:
    """The columns go into `folder`, each under its name."""
    staged = _Staged([], [], [])
    writers: dict[str, RowsWriter] = {}
    with ExitStack() as stack:
        for rows in batches:
            staged.positions.extend(rows.positions)
            staged.captions.extend(rows.captions)
            staged.faults.extend(rows.faults)
            for column, stored in rows.columns.items():
                if column not in writers:
                    writers[column] = stack.enter_context(RowsWriter(folder / column))
                writers[column].append(stored)
    return staged


def _publish_faults(uri: str, faults: list[Fault]) -> None:
    storage.remove(uri)
    if faults:
        lines = (json.dumps(dataclasses.asdict(fault), ensure_ascii=False) + "\n" for fault in faults)
        storage.publish_bytes(uri, "".join(lines).encode())


def _moments(task: EmbedTask, part: Part) -> Moments:
    if not part.num_samples:
        return NOTHING
    vectors, about = (
        storage.join(task.to, file_name(column, part.name))
        for column in (layout.IMAGE_EMBED, layout.METADATA)
    )
    splits = metadata.read_index(about, part.name, part.num_samples).splits
    trained = np.array(splits, object) == "train"
    return moments_of_file(vectors, read_header(vectors), task.config.dtype, trained)
