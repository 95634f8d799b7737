"""Reading: what is there, and its bytes. Every request is tried again where it fails in passing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from dalle2_train.errors import InputError
from dalle2_train.storage.places import absolute, can_list, full_uri, local_path, open_fs
from dalle2_train.storage.retry import MissingError, RefusedAccessError, http_status, missing, patiently
from dalle2_train.storage.staging import TEMPORARY, local_staging

CHUNK = 1 << 20
_REMOTE_CHUNK = 1 << 23
_REQUESTS_AT_ONCE = 16
_MAGIC = re.compile(r"[*?\[]")


class Stat(NamedTuple):
    """A file as the storage tells of it."""

    size: int
    """Bytes."""
    version: str | None
    """An object's etag; None where the storage has no name for this version of the file."""
    modified: float | None = None
    """Seconds since the epoch, on a local file system; None elsewhere."""


def exists(uri: str) -> bool:
    """Is there a file or folder at `uri`?"""
    if (path := local_path(uri)) is not None:
        return path.exists()
    fs, remote = open_fs(uri)
    try:
        # fs.exists() would call a server that is down an absence.
        patiently(uri, lambda: fs.info(remote))
    except MissingError:
        return False
    except RefusedAccessError:
        return False  # without leave to list, S3 answers so for what is not there
    return True


def size(uri: str) -> int:
    """Bytes of the file at `uri`. Missing: InputError."""
    return stat(uri).size


def stat(uri: str) -> Stat:
    """Size and version of the file at `uri`. Missing: InputError."""
    if (local := local_path(uri)) is not None:
        found = patiently(uri, local.stat)
        return Stat(found.st_size, None, found.st_mtime)
    fs, path = open_fs(uri)
    return _stat_of(uri, patiently(uri, lambda: fs.info(path)))


def stats(uris: list[str]) -> dict[str, Stat | None]:
    """Size and version of many files, None of those that are not there; a folder is listed once where it can be."""
    folders: dict[str, list[str]] = {}
    for uri in uris:
        folders.setdefault(uri.rpartition("/")[0], []).append(uri)
    found: dict[str, Stat | None] = {}
    alone: list[str] = []
    for folder, files in folders.items():
        if len(files) == 1 or not can_list(folder):
            alone += files
        else:
            listed = list_folder(folder)
            found |= {file: listed.get(file) for file in files}
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as threads:
        found |= zip(alone, threads.map(_stat_or_none, alone), strict=True)
    return {uri: found[uri] for uri in uris}


def _stat_or_none(uri: str) -> Stat | None:
    try:
        return stat(uri)
    except MissingError:
        return None


def list_folder(uri: str, suffix: str = "") -> dict[str, Stat]:
    """The files directly in the folder `uri`, sorted, as full URIs; half-written files are not listed. Missing: {}."""
    fs, path = _listing_fs(uri)
    try:
        if (local := local_path(uri)) is not None:
            return dict(sorted(patiently(uri, lambda: dict(_scan(local, suffix))).items()))
        found = patiently(uri, lambda: fs.ls(path, detail=True))
    except MissingError:
        return {}
    files = {str(entry["name"]): entry for entry in found if entry["type"] == "file"}
    names = sorted(name for name in files if _is_listed(name, path, suffix))
    return {full_uri(uri, path, name): _stat_of(name, files[name]) for name in names}


def _scan(folder: Path, suffix: str) -> Iterator[tuple[str, Stat]]:
    """Links are followed, as a set's shards may be; one that leads nowhere is a file of no bytes."""
    for entry in os.scandir(folder):
        if not entry.name.endswith(suffix) or entry.name.startswith(TEMPORARY):
            continue
        if entry.is_file():
            found = entry.stat()
            yield entry.path, Stat(found.st_size, None, found.st_mtime)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            yield entry.path, Stat(0, None)


def list_files(uri: str, suffix: str = "") -> list[str]:
    """Every file under `uri`, recursively, sorted, as full URIs; half-written files are not listed. Missing: []."""
    fs, path = _listing_fs(uri)
    found = sorted(str(name) for name in patiently(uri, lambda: fs.find(path)))
    return [full_uri(uri, path, name) for name in found if _is_listed(name, path, suffix)]


def glob(pattern: str) -> list[str]:
    """The files that match `pattern` (*, ?, [abc], ** for any depth), sorted, as full URIs."""
    fs, path = _listing_fs(pattern)
    folder = _MAGIC.split(absolute(pattern), maxsplit=1)[0].rpartition("/")[0]
    root = open_fs(folder)[1]
    return [full_uri(folder, root, str(name)) for name in sorted(patiently(pattern, lambda: fs.glob(path)))]


def _listing_fs(uri: str) -> tuple[Any, str]:
    if not can_list(uri):
        raise InputError(f"{uri}: a web server does not list its files; name them, "
                         "as in https://host/set/{00000..00099}.tar")  # fmt: skip
    fs, path = open_fs(uri)
    # A listing kept by fsspec would hide what another process has published since.
    fs.invalidate_cache()
    return fs, path


def _is_listed(name: str, folder: str, suffix: str) -> bool:
    """Not so the staging of a process that was killed, or that still writes."""
    return name.endswith(suffix) and f"/{TEMPORARY}" not in name[len(folder) :]


def _stat_of(uri: str, info: dict[str, Any]) -> Stat:
    if info["size"] is None and info["type"] == "file":
        raise InputError(f"{uri}: the server does not tell its size; copy the file to other storage")
    version = info.get("ETag") or info.get("etag") or info.get("Last-Modified")
    return Stat(int(info["size"] or 0), str(version).strip('"') if version else None)


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
        raise InputError(f"{uri}: the server answers a request for a part with the whole file; use a server that "
                         "knows range requests, or copy the shards")  # fmt: skip
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
            raise InputError(f"{self.uri}: became shorter while it was read; read it again")
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
            f"{uri}: not JSON ({error}); it is damaged, remove it and run its step again"
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
            raise InputError(f"{file}: its name leads out of {uri}; it is refused")
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
        if not path.is_file():
            raise missing(uri)
        yield path
        return
    with local_staging() as folder:
        copy = folder / "file"
        download(absolute(uri), copy)
        yield copy
