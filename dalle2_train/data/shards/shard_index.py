"""The index of one shard: where its samples lie, and what is known of each without decoding it.

It is kept as a parquet file, a row a sample in the tar's order, so that what is not needed is not read.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

_PLACES = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),  # bytes into the tar, its first member's header included
        ("length", pa.int64()),
        ("crc32", pa.uint32()),  # of these bytes
        ("split", pa.string()),
        ("fault", pa.string()),  # what is wrong with it by its members alone; null: nothing
    ]
)
_KNOWN = pa.schema(
    [
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
        ("caption_length", pa.int32()),  # characters
        ("similarity", pa.float64()),  # CLIP's cosine of picture and caption, as LAION tells it
        ("aesthetic", pa.float64()),  # LAION's predicted score, 1 to 10
        ("punsafe", pa.float64()),  # probability that it is not safe, as LAION tells it
        ("pwatermark", pa.float64()),  # probability of a watermark
        ("nsfw", pa.string()),  # LAION's UNLIKELY, UNSURE or NSFW
        ("language", pa.string()),
        ("url", pa.string()),
        ("hash", pa.string()),  # of the picture's bytes or pixels, as the set tells it
    ]
)
_ADDED = pa.schema(
    [
        ("format", pa.string()),  # the extension of its picture
        ("nsfw_score", pa.float32()),  # probability that it is pornographic, by the model of `shards score`
    ]
)
SCHEMA = pa.unify_schemas([_PLACES, _KNOWN, _ADDED])
"""Every column of an index; those of a file that lacks the last ones are null."""

SPELLINGS = {
    "width": ("original_width", "width", "WIDTH"),
    "height": ("original_height", "height", "HEIGHT"),
    "similarity": ("similarity", "SIMILARITY"),
    "aesthetic": ("aesthetic", "AESTHETIC_SCORE", "aesthetic_score"),
    "punsafe": ("punsafe", "PUNSAFE"),
    "pwatermark": ("pwatermark", "PWATERMARK"),
    "nsfw": ("nsfw", "NSFW"),
    "language": ("language", "LANGUAGE", "lang"),
    "url": ("url", "URL"),
    "hash": ("sha256", "md5", "hash", "HASH", "phash"),
}
"""The names that LAION's releases and img2dataset give to the columns of an index, the more telling first."""


class Place(NamedTuple):
    """A sample's shard and its position there."""

    shard: int
    position: int


@dataclass(frozen=True)
class ShardIndex:
    """The rows of one shard, N samples: numbers as NumPy's arrays (N,), texts as lists of N."""

    table: pa.Table

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def keys(self) -> list[str]:
        return self.table.column("key").to_pylist()

    @cached_property
    def splits(self) -> list[str]:
        return self.table.column("split").to_pylist()

    @cached_property
    def faults(self) -> list[str | None]:
        return self.table.column("fault").to_pylist()

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        return self._numbers("offset")

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        return self._numbers("length")

    @cached_property
    def crc32s(self) -> NDArray[np.uint32]:
        return self._numbers("crc32")

    def _numbers(self, column: str) -> NDArray[Any]:
        """Arrow's own `to_numpy` brings pandas, whose start costs every loader worker a second."""
        return np.from_dlpack(self.table.column(column).combine_chunks())


def index_of(rows: Sequence[Mapping[str, Any]]) -> ShardIndex:
    """An index of `rows`; columns that a row lacks are null."""
    columns = {name: [row.get(name) for row in rows] for name in SCHEMA.names}
    return ShardIndex(pa.table(columns, schema=SCHEMA))


def known(record: Mapping[str, Any], caption: str | None) -> dict[str, Any]:
    """The columns that a sample's json and caption tell; what is no number where one belongs is null."""
    found: dict[str, Any] = {"caption_length": None if caption is None else len(caption)}
    for name, spellings in SPELLINGS.items():
        value = next((record[spelling] for spelling in spellings if record.get(spelling) is not None), None)
        found[name] = _as(_KNOWN.field(name).type, value)
    return found


def text_or_none(text: str) -> str | None:
    """The text; None for half a character, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def faulty_positions(rows: ShardIndex) -> Iterator[tuple[int, str]]:
    """(position, kind) of the samples that the index itself calls faulty; a key that came before is a duplicate."""
    seen: set[str] = set()
    for position, (key, fault) in enumerate(zip(rows.keys, rows.faults, strict=True)):
        if fault is not None or key in seen:
            yield position, fault or "duplicate"
        seen.add(key)


def to_bytes(index: ShardIndex, about: Mapping[str, Any]) -> bytes:
    """The parquet file, which also carries `about` (JSON): the shard as it was when it was read."""
    stream = io.BytesIO()
    kept = index.table.schema.metadata or {}
    table = index.table.replace_schema_metadata({**kept, b"shard": json.dumps(about).encode()})
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def from_bytes(data: bytes) -> tuple[ShardIndex, dict[str, Any]]:
    """The inverse of `to_bytes`. Something else: ValueError."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()  # pq.read_table brings pandas too
        about = json.loads((table.schema.metadata or {})[b"shard"])
    except (pa.ArrowException, KeyError) as error:
        raise ValueError(f"not an index of a shard ({error})") from error
    if table.schema.names[: len(_PLACES)] != _PLACES.names or set(table.schema.names) - set(SCHEMA.names):
        raise ValueError("its columns are not those of an index")
    return ShardIndex(_complete(table)), about


def _complete(table: pa.Table) -> pa.Table:
    """The table with the columns that came up after it was written; they are null."""
    for field in SCHEMA:
        if field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(SCHEMA.names)


def _as(kind: pa.DataType, value: Any) -> Any:
    """`value` as a column of `kind` holds it, or None."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return text_or_none(str(value))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    if pa.types.is_integer(kind):
        return int(number) if abs(number) < 2**31 else None
    return number
