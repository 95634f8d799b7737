"""The files that opt-out lists come in: texts of a line an entry, .jsonl and .parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle2_train.errors import InputError

_COLUMNS = {
    "url": ("url", "URL"),
    "domain": ("domain", "DOMAIN"),
    "hash": ("hash", "HASH", "sha256", "md5", "phash"),
}


def entries(uri: str, data: bytes) -> Iterator[tuple[str, str | None, str]]:
    """(where it stands, its kind if the file tells it, the entry) for each of a file. Unreadable: InputError."""
    try:
        if uri.endswith(".parquet"):
            yield from _columns(uri, pq.ParquetFile(io.BytesIO(data)))
        else:
            lines = enumerate(data.decode("utf-8-sig").splitlines(), start=1)
            yield from (_objects if uri.endswith(".jsonl") else _texts)(lines)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{uri}: cannot be read ({error}); give a .txt, .jsonl or .parquet file") from error


def _texts(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, None, str]]:
    for number, line in lines:
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"line {number}", None, line


def _objects(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[str, str | None, str]]:
    for number, line in lines:
        where = f"line {number}"
        if not line.strip():
            continue
        try:
            found: Any = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, str):
            yield where, None, found
            continue
        named = list(_named(found)) if isinstance(found, dict) else []
        yield from ((where, kind, text) for kind, text in named) if named else [(where, "domain", line)]


def _named(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, names in _COLUMNS.items():
        yield from ((kind, str(found[name])) for name in names if found.get(name) is not None)


def _columns(uri: str, file: pq.ParquetFile) -> Iterator[tuple[str, str, str]]:
    wanted = [
        (kind, name) for kind, names in _COLUMNS.items() for name in names if name in file.schema_arrow.names
    ]
    if not wanted:
        known = ", ".join(name for names in _COLUMNS.values() for name in names)
        raise InputError(f"{uri}: has the columns {file.schema_arrow.names}; name one of them {known}")
    for kind, name in wanted:
        values = file.read([name]).column(name).to_pylist()
        yield from (
            (f"{name}, row {i}", kind, str(value)) for i, value in enumerate(values) if value is not None
        )
