"""The metadata of a part: its keys and captions, and what is known of each sample, as far as its maker tells."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from dalle2_train import storage
from dalle2_train.data.shards.shard_index import SCHEMA, SPELLINGS, ShardIndex
from dalle2_train.errors import InputError

pc: Any = pyarrow.compute  # its functions come into being when it is imported
CAPTION = "caption"
_OF_THE_TAR = ("offset", "length", "crc32", "fault")
_KEYS = ("key", "image_path")  # ours and img2dataset's, then clip-retrieval's


def to_bytes(index: ShardIndex, captions: list[str]) -> bytes:
    """The parquet file of the samples in `index`, without their places in the tar."""
    columns = {name: index.table.column(name) for name in SCHEMA.names if name not in _OF_THE_TAR}
    stream = io.BytesIO()
    pq.write_table(
        pa.table({CAPTION: pa.array(captions, pa.string()), **columns}), stream, compression="zstd"
    )
    return stream.getvalue()


def read_index(uri: str, part: str, num_rows: int) -> ShardIndex:
    """The rows of a part as an index, whose places mean nothing; what the file does not tell is null.

    Without keys a sample is called by its part and row. Another number of rows, or no parquet: InputError.
    """
    table = read_table(uri)
    if table.num_rows != num_rows:
        raise InputError(
            f"{uri}: has {table.num_rows} rows, but {num_rows} embeddings lie beside it; embed again"
        )
    keys = keys_of(table)
    if keys is None:
        keys = pa.array([f"{part}-{row:06d}" for row in range(num_rows)], pa.string())
    columns = {field.name: _known(table, field) for field in SCHEMA}
    columns |= {"key": keys, "split": _splits(table)}
    return ShardIndex(pa.table(columns, schema=SCHEMA))


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """The parquet file at `uri`. Something else: InputError."""
    try:
        return pq.read_table(pa.BufferReader(storage.read_bytes(uri)), columns=columns)
    except pa.ArrowException as error:
        raise InputError(f"{uri}: no parquet file ({error}); embed again, or give other files") from error


def read_captions(uri: str) -> pa.ChunkedArray:
    """The captions of a part (N,). None in the file: InputError."""
    table = read_table(uri)
    if CAPTION not in table.column_names:
        raise InputError(f"{uri}: has no column {CAPTION!r}, which the text is computed from; give "
                         "embeddings with captions, or the shards as --data")  # fmt: skip
    return table.column(CAPTION).cast(pa.string())


def keys_of(table: pa.Table) -> pa.ChunkedArray | None:
    """The samples' keys; None where the file has none. A path is the key with folders and extension around it."""
    for name in _KEYS:
        if name in table.column_names:
            keys = table.column(name).cast(pa.string())
            if name == "image_path" and pc.any(pc.match_substring_regex(keys, r"[/.]")).as_py():
                return pa.chunked_array([[PurePosixPath(path).stem for path in keys.to_pylist()]])
            return keys
    return None


def _splits(table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """The split of every row; rows that name none (LAION's) are for training."""
    if "split" not in table.column_names:
        return pa.array(["train"] * table.num_rows, pa.string())
    return pc.fill_null(table.column("split").cast(pa.string()), "train")


def _known(table: pa.Table, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    for column in _columns(table, field.name) if field.name not in _OF_THE_TAR else ():
        try:
            return pc.cast(column, field.type, safe=False)
        except pa.ArrowException:
            continue
    if field.name == "caption_length" and CAPTION in table.column_names:
        return pc.utf8_length(table.column(CAPTION).cast(pa.string())).cast(field.type)
    return pa.nulls(table.num_rows, field.type)


def _columns(table: pa.Table, name: str) -> Iterator[pa.ChunkedArray]:
    for spelling in (*SPELLINGS.get(name, ()), name):
        if spelling in table.column_names:
            yield table.column(spelling)
