"""What one tar holds, as its manifest and its index will tell it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import IO, Any

from dalle2_train import storage
from dalle2_train.data.pictures.formats import IMAGE_EXTENSIONS
from dalle2_train.data.shards import tarscan
from dalle2_train.data.shards.manifest import Shard
from dalle2_train.data.shards.shard_index import ShardIndex, index_of, known, text_or_none
from dalle2_train.data.shards.texts import read_texts

_OF_CAPTIONS = ("no_caption", "broken_caption")
"""Not of the index: where the caption is found is each training's to say."""


def read_shard(
    local: Path, path: str, num_expected: int | None = None, version: str | None = None
) -> tuple[Shard, ShardIndex]:
    """What a tar holds, up to its damage if it has any; the manifest will call it `path`."""
    found = tarscan.scan(local)
    with local.open("rb") as stream:
        rows = index_of([_row(stream, sample) for sample in found.samples])
    shard = Shard(
        path=path,
        size=local.stat().st_size,
        sha256=storage.sha256_file(local),
        num_samples=len(rows),
        splits=dict(sorted(Counter(rows.splits).items())),
        num_expected=len(rows) if num_expected is None else num_expected,
        problem=found.problem_of(num_expected),
        version=version,
    )
    return shard, rows


def _split_of(record: dict[str, Any]) -> str:
    """The `split` that a json record names; records without one (LAION's) are for training."""
    split = record.get("split")
    return text_or_none(split) or "train" if isinstance(split, str) else "train"


def _row(stream: IO[bytes], sample: tarscan.Sample) -> dict[str, Any]:
    """A sample's row of the index."""
    texts = read_texts(stream, sample)
    record = texts.record or {}
    return {
        "key": sample.key,
        "offset": sample.offset,
        "length": sample.length,
        "crc32": sample.crc32(stream),
        "split": _split_of(record),
        "fault": next((kind for kind in texts.faults if kind not in _OF_CAPTIONS), None),
        "format": _format(sample),
        **known(record, texts.caption),
    }


def _format(sample: tarscan.Sample) -> str | None:
    extensions = {member.extension for member in sample.members}
    return next((extension for extension in IMAGE_EXTENSIONS if extension in extensions), None)
