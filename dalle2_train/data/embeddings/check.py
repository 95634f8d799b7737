"""Finds what is wrong with an embedded set: files, counts, keys, and numbers that are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow.compute

from dalle2_train import storage
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import read_rows, widened
from dalle2_train.data.embeddings.layout import file_name
from dalle2_train.data.embeddings.sets import EmbeddingSet
from dalle2_train.data.faults import Fault
from dalle2_train.errors import InputError

pc: Any = pyarrow.compute  # its functions come into being when it is imported
_ROWS_TOGETHER = 4096


def check_embeddings(found: EmbeddingSet) -> Iterator[Fault]:
    """Reads every byte. Of a file: missing, digest, count. Of a sample: duplicate, broken_embedding."""
    for number, part in enumerate(found.embeddings.parts):
        damaged = list(_file_faults(found, number))
        yield from damaged
        if not damaged and part.num_samples:
            yield from _row_faults(found, number)


def _file_faults(found: EmbeddingSet, number: int) -> Iterator[Fault]:
    part = found.embeddings.parts[number]
    for column, digest in part.files.items():
        name, uri = file_name(column, part.name), found.uri(number, column)
        if not storage.exists(uri):
            yield Fault(name, None, "missing")
        elif storage.sha256_file(uri) != digest:
            yield Fault(name, None, "digest")
        elif (
            column != layout.METADATA and (rows := found.header(number, column).shape[0]) != part.num_samples
        ):
            yield Fault(name, None, "count", f"it has {rows} rows, the manifest says {part.num_samples}")


def _row_faults(found: EmbeddingSet, number: int) -> Iterator[Fault]:
    part = found.embeddings.parts[number]
    try:
        index = found.index(number)
    except InputError as error:
        yield Fault(file_name(layout.METADATA, part.name), None, "count", str(error))
        return
    counted = pc.value_counts(index.table.column("key"))
    repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    yield from (Fault(part.name, key.as_py(), "duplicate") for key in repeated)
    for column in (layout.IMAGE_EMBED, layout.TEXT_EMBED):
        if column in part.files:
            yield from (
                Fault(part.name, index.keys[row], "broken_embedding", f"its {column} is not finite")
                for row in _broken_rows(found, number, column)
            )


def _broken_rows(found: EmbeddingSet, number: int, column: str) -> Iterator[int]:
    header, uri = found.header(number, column), found.uri(number, column)
    for start in range(0, header.shape[0], _ROWS_TOGETHER):
        rows = read_rows(uri, header, start, min(start + _ROWS_TOGETHER, header.shape[0]))
        finite = np.isfinite(widened(rows, found.embeddings.info.dtype)).all(1)
        yield from (start + int(row) for row in np.flatnonzero(~finite))
