"""Lists of addresses, as LAION publishes them: parquet files with a column of URLs, one of captions, and others.

The pictures are fetched by img2dataset, which is no dependency of ours: its own would clash.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dalle2_train import storage
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards.index import index
from dalle2_train.data.shards.manifest import ShardManifest
from dalle2_train.data.shards.writer import begin, finish
from dalle2_train.data.sources import img2dataset
from dalle2_train.errors import InputError, RefusedError

IMAGE_SIZE = 256
_URLS, _CAPTIONS = ("url", "URL"), ("caption", "TEXT", "text", "CAPTION", "alt")
_FOOTER = 1 << 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UrlList:
    """A list that was opened: its files, and what its columns are for."""

    uri: str
    files: tuple[str, ...]
    num_rows: int
    url: str
    caption: str
    others: tuple[str, ...]
    """Columns that go with the samples, into their json records."""


def open_list(uri: str) -> UrlList:
    """The list at `uri`: a .parquet file, or a folder that holds some. Without addresses or captions: InputError."""
    files = [uri] if uri.endswith(".parquet") else storage.list_folder(uri, ".parquet")
    if not files:
        raise InputError(f"parquet:{uri}: no .parquet file and no folder that holds one; give a list of URLs")
    heads = [_head(file) for file in files]
    names = [name for name in heads[0][0] if all(name in columns for columns, _ in heads)]
    url, caption = _column(uri, names, _URLS), _column(uri, names, _CAPTIONS)
    others = [name for name in names if name not in (url, caption, "__index_level_0__")]
    if clash := [name for name in others if name in img2dataset.RESERVED]:
        _log.warning("%s: the columns %s are left out: img2dataset writes its own", uri, ", ".join(clash))
    others = [name for name in others if name not in img2dataset.RESERVED]
    return UrlList(
        storage.absolute(uri), tuple(files), sum(rows for _, rows in heads), url, caption, tuple(others)
    )


def source(listed: UrlList, image_size: int) -> dict[str, Any]:
    """What identifies an ingest of this list: where it is, its files' sizes and ends, and how pictures are kept."""
    parts = []
    for file in listed.files:
        size = storage.size(file)
        parts.append(f"{size} {storage.sha256_bytes(storage.read_bytes(file, max(0, size - _FOOTER)))}")
    return {
        "kind": "parquet",
        "uri": listed.uri,
        "rows": listed.num_rows,
        "sha256": storage.sha256_bytes("\n".join(parts).encode()),
        "image_size": image_size,
    }


def write(listed: UrlList, to: str, identity: dict[str, Any], progress: Progress | None) -> ShardManifest:
    """Fetches the pictures into shards and indexes them; goes on where it was interrupted.

    Without img2dataset, or when it fails: InputError. When no address has given a picture: RefusedError.
    """
    program = img2dataset.find_program()
    begin(to, identity)
    arguments = img2dataset.arguments(
        url_list=listed.uri,
        to=to,
        url=listed.url,
        caption=listed.caption,
        others=listed.others,
        image_size=identity["image_size"],
    )
    img2dataset.run(program, arguments, to, listed.num_rows, progress or on_stderr("ingest", "addresses"))
    found = statuses(to)
    if not found.get("success"):
        raise RefusedError(
            f"none of the {listed.num_rows} addresses in {listed.uri} gave a picture: {found}; "
            f"see to the network or the list, remove {to} and run it again"
        )
    manifest = dataclasses.replace(index(to), source=identity)
    finish(manifest, to)
    return manifest


def statuses(to: str) -> dict[str, int]:
    """What became of the addresses, the most frequent first: status in img2dataset's words → how many."""
    counts: Counter[str] = Counter()
    for _, found in img2dataset.stats(to):
        counts.update(found["status_dict"])
    return dict(counts.most_common())


def _head(file: str) -> tuple[list[str], int]:
    """(columns, rows) of a parquet file."""
    try:
        with storage.open_read(file) as stream:
            found = pq.ParquetFile(stream)
            return found.schema_arrow.names, found.metadata.num_rows
    except pa.ArrowException as error:
        raise InputError(f"{file}: not a parquet file ({error}); give a list of URLs as parquet") from error


def _column(uri: str, names: list[str], wanted: tuple[str, ...]) -> str:
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise InputError(
            f"parquet:{uri}: has the columns {names}; one of them must be called {' or '.join(wanted)}"
        )
    return found
