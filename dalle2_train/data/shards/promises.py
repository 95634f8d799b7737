"""What img2dataset's files beside a tar promise of it: without them a tar cut at a sample's end looks whole."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow.parquet as pq

from dalle2_train import storage
from dalle2_train.data import limits
from dalle2_train.data.values import decode_record

_MOST_ROWS = 10_000_000
"""A parquet of a few bytes can claim more rows than there is memory."""


class _UnreadableError(Exception):
    """The file is there, and is not what it should be."""


class Promise(NamedTuple):
    """What a shard should hold; None where no file says it."""

    stats: int | None = None
    """Samples, by NAME_stats.json."""
    keys: frozenset[str] | None = None
    """Of the samples, by NAME.parquet."""
    problems: tuple[str, ...] = ()
    """"stats" and "table": the file is there and cannot be read."""

    @property
    def num_samples(self) -> int | None:
        """By the stats, or else by the parquet."""
        return self.stats if self.stats is not None or self.keys is None else len(self.keys)


def promise_of(tar: str) -> Promise:
    """What the files beside the tar at that URI promise."""
    base, problems = tar.removesuffix(".tar"), []
    stats, keys = None, None
    try:
        stats = _stats(f"{base}_stats.json")
    except _UnreadableError:
        problems.append("stats")
    try:
        keys = _keys(f"{base}.parquet")
    except _UnreadableError:
        problems.append("table")
    return Promise(stats, keys, tuple(problems))


def _stats(uri: str) -> int | None:
    if not storage.exists(uri):
        return None
    data = storage.read_bytes(uri, 0, limits.TEXT_BYTES + 1)
    try:
        count = decode_record(data).get("successes")
    except ValueError as error:
        raise _UnreadableError from error
    if not isinstance(count, int) or count < 0:
        raise _UnreadableError
    return count


def _keys(uri: str) -> frozenset[str] | None:
    """Of the rows that img2dataset calls a success; None where the parquet is none of its own."""
    if not storage.exists(uri):
        return None
    try:
        with storage.open_read(uri) as stream, pq.ParquetFile(stream) as file:
            if not {"key", "status"} <= set(file.schema_arrow.names):
                return None
            if file.metadata.num_rows > _MOST_ROWS:
                raise _UnreadableError
            rows = file.read(["key", "status"]).to_pydict()
    except (storage.UnreachableError, storage.RefusedAccessError):
        raise
    except Exception as error:  # Arrow's readers raise whatever the bytes lead them to
        raise _UnreadableError from error
    pairs = zip(rows["key"], rows["status"], strict=True)
    return frozenset(str(key) for key, status in pairs if status == "success")
