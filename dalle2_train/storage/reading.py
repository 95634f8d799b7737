"""Reading: the bytes of files. Every request is tried again where it fails in passing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, cast

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.storage.listing import list_files, local_mode, size
from dalle2_train.storage.places import absolute, local_path, open_fs
from dalle2_train.storage.retry import http_status, missing, patiently
from dalle2_train.storage.staging import TEMPORARY, local_staging

CHUNK = 1 << 20
"""Bytes that are copied at once."""
_REMOTE_CHUNK = 1 << 23


def read_bytes(uri: str, start: int = 0, length: int | None = None) -> bytes:
    """`length` bytes from `start` (None: to the end); fewer where the file ends. Missing: InputError."""
    if (path := local_path(uri)) is not None:
        return patiently(uri, lambda: _read_local(path, start, length))
    return patiently(uri, lambda: _read_range(uri, start, length))


def _read_local(path: Path, start: int, length: int | None) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read() if length is None else stream.read(length)
    except IsADirectoryError as error:
        raise missing(str(path)) from error


def _read_range(uri: str, start: int, length: int | None) -> bytes:
    if length == 0:
        return b""
    fs, path = open_fs(uri)
    try:
        data = cast(bytes, fs.cat_file(path, start=start, end=None if length is None else start + length))
    except Exception as error:
        if http_status(error) == 416:  # nothing there any more
            return b""
        raise
    if length is not None and len(data) > length:
        raise InputError(f"{redact(uri)}: the server answers a request for a part with the whole file; use a server "
                         "that knows range requests, or copy the shards")  # fmt: skip
    return data


class _Ranges(io.RawIOBase):
    """A remote file as a stream: every piece is a request of its own, so that a lost connection costs one piece."""

    def __init__(self, uri: str) -> None:
        self.uri, self.size, self.position = uri, size(uri), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self.size - self.position))
        data = read_bytes(self.uri, self.position, wanted)
        if len(data) != wanted:
            raise InputError(f"{redact(self.uri)}: became shorter while it was read; read it again")
        buffer[:wanted] = data
        self.position += wanted
        return wanted


@contextlib.contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """A binary stream of the file at `uri`. Missing: InputError."""
    if (path := local_path(uri)) is not None:
        try:
            stream = patiently(uri, lambda: path.open("rb"))
        except IsADirectoryError as error:
            raise missing(uri) from error
    else:
        stream = io.BufferedReader(_Ranges(uri), _REMOTE_CHUNK)
    with stream:
        yield cast(IO[bytes], stream)


def read_json(uri: str) -> Any:
    """The JSON value in the file at `uri`. Missing, or not JSON: InputError."""
    try:
        return json.loads(read_bytes(uri).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{redact(uri)}: not JSON ({error}); it is damaged, remove it and run its step again"
        ) from error


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(uri: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces. Missing: InputError."""
    digest = hashlib.sha256()
    with open_read(os.fspath(uri)) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download(uri: str, local: Path) -> None:
    """Copies the file at `uri` to `local`, visible only when whole. Missing: InputError."""
    local.parent.mkdir(parents=True, exist_ok=True)
    temporary = local.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{local.name}")
    try:
        with open_read(uri) as source, temporary.open("wb") as stream:
            shutil.copyfileobj(source, stream, CHUNK)
        os.replace(temporary, local)
    finally:
        temporary.unlink(missing_ok=True)


def download_tree(uri: str, local: Path) -> None:
    """Copies every file under `uri` to the same relative place under `local`. Nothing there: InputError."""
    files = list_files(uri)
    if not files:
        raise missing(uri)
    root = local.resolve()
    for file in files:
        target = (root / _relative(file, uri)).resolve()
        if not target.is_relative_to(root):
            raise InputError(redact(f"{file}: its name leads out of {uri}; it is refused"))
        download(file, target)


def _relative(file: str, uri: str) -> str:
    """`file` relative to the folder `uri`, both as the file system spells them."""
    root, path = open_fs(uri)[1], open_fs(file)[1]
    return path[len(root.rstrip("/")) + 1 :] or path.rsplit("/", 1)[-1]


@contextlib.contextmanager
def as_local(uri: str) -> Iterator[Path]:
    """The file at `uri` as a local path: itself when it is local, else a copy that is gone afterwards."""
    path = local_path(uri)
    if path is not None:
        mode = local_mode(uri, path)
        if mode is None or not S_ISREG(mode):
            raise missing(uri)
        yield path
        return
    with local_staging() as folder:
        copy = folder / "file"
        download(absolute(uri), copy)
        yield copy
