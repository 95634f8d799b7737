"""The one door to files: fsspec URIs are read, listed, and written under a temporary name that is then published.

A URI is a string; a plain path is a local file and is made absolute, because workers change directory. On a local
file system publishing is write, fsync, rename. On an object store an upload appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import fsspec
from fsspec.spec import AbstractFileSystem

from dalle2_train.errors import InputError

_CHUNK = 1 << 20
_RETRY_SECONDS = (0.2, 1.0, 4.0)
# Schemes that never mean "a place for data": they would run a shell or wrap another URL in it.
_REFUSED_SCHEMES = ("pipe", "simplecache", "filecache", "blockcache", "reference")
_TEMPORARY = ".partial-"

_log = logging.getLogger(__name__)


def _scheme(uri: str) -> str:
    head, found, _ = uri.partition(":")
    return head if found and head.isidentifier() and len(head) > 1 else ""


def absolute(uri: str | os.PathLike[str]) -> str:
    """`uri` as it may be handed to another process: a plain path or `file:` URI becomes an absolute plain path."""
    uri = os.fspath(uri)
    if not uri:
        raise InputError("an empty path was given where a folder or URI is needed")
    scheme = _scheme(uri)
    if scheme in _REFUSED_SCHEMES or "::" in uri:
        raise InputError(
            f"{uri}: chained and shell URIs are refused; use file:, s3: or another plain fsspec URI"
        )
    if scheme in ("", "file", "local"):
        path = uri if not scheme else uri[len(scheme) + 1 :]
        if scheme and path.startswith("//"):
            path = "/" + path.lstrip("/")
        return os.path.abspath(os.path.expanduser(path))
    return uri.rstrip("/")


def local_path(uri: str) -> Path | None:
    """The `Path` of a local URI, None for a remote one."""
    resolved = absolute(uri)
    return Path(resolved) if not _scheme(resolved) else None


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, absolute."""
    return "/".join([absolute(uri).rstrip("/"), *(part.strip("/") for part in parts)])


def _open_fs(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system and the path in it."""
    resolved = absolute(uri)
    try:
        fs, path = fsspec.core.url_to_fs(resolved)
    except (ImportError, ValueError) as error:
        raise InputError(f"{uri}: no file system for this URI ({error}); use a path, file: or s3:") from error
    return cast(AbstractFileSystem, fs), path


def _missing(uri: str) -> InputError:
    return InputError(f"{uri}: no such file; check the path, or run the step that makes it")


def exists(uri: str) -> bool:
    """Is there a file or folder at `uri`?"""
    fs, path = _open_fs(uri)
    return bool(fs.exists(path))


def size(uri: str) -> int:
    """Bytes of the file at `uri`. Missing: InputError."""
    fs, path = _open_fs(uri)
    try:
        return int(fs.info(path)["size"] or 0)
    except FileNotFoundError as error:
        raise _missing(uri) from error


class Stat(NamedTuple):
    """A file as the storage tells of it."""

    size: int
    """Bytes."""
    version: str | None
    """An object's etag; None where the storage has no name for this version of the file."""


def stat(uri: str) -> Stat:
    """Size and version of the file at `uri`. Missing: InputError."""
    fs, path = _open_fs(uri)
    try:
        info = fs.info(path)
    except FileNotFoundError as error:
        raise _missing(uri) from error
    etag = info.get("ETag") or info.get("etag")
    return Stat(int(info["size"] or 0), str(etag).strip('"') if etag else None)


def glob(pattern: str) -> list[str]:
    """The files that match `pattern` (*, ?, [abc], ** for any depth), sorted, as full URIs."""
    fs, path = _open_fs(pattern)
    prefix = f"{_scheme(absolute(pattern))}://" if local_path(pattern) is None else ""
    fs.invalidate_cache()
    return [f"{prefix}{str(name).removeprefix(prefix)}" for name in sorted(fs.glob(path))]


def list_files(uri: str, suffix: str = "") -> list[str]:
    """Every file under `uri`, recursively, sorted, as full URIs; half-written files are not listed. Missing: []."""
    fs, path = _open_fs(uri)
    prefix = f"{_scheme(absolute(uri))}://" if local_path(uri) is None else ""
    # A listing kept by fsspec would hide what another process has published since.
    fs.invalidate_cache(path)
    found = sorted(str(name) for name in fs.find(path))
    # Staging folders and temporary files, of a process that was killed or of one that still writes.
    names = [name for name in found if name.endswith(suffix) and f"/{_TEMPORARY}" not in name[len(path) :]]
    return [f"{prefix}{name}" for name in names]


@contextlib.contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """A binary stream of the file at `uri`. Missing: InputError."""
    fs, path = _open_fs(uri)
    try:
        stream = fs.open(path, "rb")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise _missing(uri) from error
    with stream:
        yield cast(IO[bytes], stream)


def read_bytes(uri: str, start: int = 0, length: int | None = None) -> bytes:
    """`length` bytes from `start` (None: to the end); fewer where the file ends. Missing: InputError."""
    with open_read(uri) as stream:
        stream.seek(start)
        return stream.read() if length is None else stream.read(length)


def read_patiently(uri: str, start: int = 0, length: int | None = None) -> bytes:
    """`read_bytes`, tried again: storage that fails now and then must not cost a run, nor a sample."""
    for pause in _RETRY_SECONDS:
        try:
            return read_bytes(uri, start, length)
        except OSError as error:
            _log.warning("%s: %s; trying again in %.1f s", uri, error, pause)
            time.sleep(pause)
    return read_bytes(uri, start, length)


def read_json(uri: str) -> Any:
    """The JSON value in the file at `uri`. Missing, or not JSON: InputError."""
    try:
        return json.loads(read_bytes(uri).decode("utf-8"))
    except ValueError as error:
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
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def publish_bytes(uri: str, data: bytes) -> str:
    """Writes `data` so that a reader sees the old file or the whole new one. Returns its SHA-256."""
    path = local_path(uri)
    if path is None:
        fs, remote = _open_fs(uri)
        fs.pipe_file(remote, data)
        return sha256_bytes(data)
    with _unwritable_is_input(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{path.name}")
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return sha256_bytes(data)


def publish_json(uri: str, value: Any) -> str:
    """Publishes `value` as indented JSON (NaN is refused). Returns the SHA-256 of the text."""
    return publish_bytes(uri, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def publish_file(local: Path, uri: str) -> str:
    """Copies a local file to `uri`, visible only when whole. Returns its SHA-256."""
    target = local_path(uri)
    if target is None:
        fs, remote = _open_fs(uri)
        fs.put_file(str(local), remote)
        return sha256_file(local)
    with _unwritable_is_input(uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{target.name}")
        try:
            with local.open("rb") as source, temporary.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK)
                stream.flush()
                os.fsync(stream.fileno())
            digest = sha256_file(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return digest


def download(uri: str, local: Path) -> None:
    """Copies the file at `uri` to `local`, visible only when whole. Missing: InputError."""
    local.parent.mkdir(parents=True, exist_ok=True)
    temporary = local.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}-{local.name}")
    try:
        with open_read(uri) as source, temporary.open("wb") as stream:
            shutil.copyfileobj(source, stream, _CHUNK)
        os.replace(temporary, local)
    finally:
        temporary.unlink(missing_ok=True)


def download_tree(uri: str, local: Path) -> None:
    """Copies every file under `uri` to the same relative place under `local`. Nothing there: InputError."""
    files = list_files(uri)
    if not files:
        raise _missing(uri)
    root = local.resolve()
    for file in files:
        target = (root / _relative(file, uri)).resolve()
        if not target.is_relative_to(root):
            raise InputError(f"{file}: its name leads out of {uri}; it is refused")
        download(file, target)


def _relative(file: str, uri: str) -> str:
    """`file` relative to the folder `uri`, both as the file system spells them."""
    root, path = _open_fs(uri)[1], _open_fs(file)[1]
    return path[len(root.rstrip("/")) + 1 :] or path.rsplit("/", 1)[-1]


def remove(uri: str) -> None:
    """Removes a file or a whole folder; what is not there is no error."""
    fs, path = _open_fs(uri)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def check_writable(uri: str) -> None:
    """Writes, reads back and removes a small file under `uri`. InputError when that cannot be done."""
    probe = join(uri, f"{_TEMPORARY}probe-{uuid.uuid4().hex}")
    try:
        publish_bytes(probe, b"probe")
        whole = read_bytes(probe) == b"probe"
        remove(probe)
    except InputError:
        raise
    except Exception as error:  # every file system has its own kinds of refusal
        raise InputError(
            f"{uri}: cannot be written ({error}); give a folder that you may write to"
        ) from error
    if not whole:
        raise InputError(f"{uri}: what was written could not be read back; give other storage")


@contextlib.contextmanager
def as_local(uri: str) -> Iterator[Path]:
    """The file at `uri` as a local path: itself when it is local, else a copy that is gone afterwards."""
    path = local_path(uri)
    if path is not None:
        if not path.is_file():
            raise _missing(uri)
        yield path
        return
    with local_staging() as folder:
        copy = folder / "file"
        download(uri, copy)
        yield copy


@contextlib.contextmanager
def local_staging(beside: Path | None = None) -> Iterator[Path]:
    """A temporary local folder that is gone afterwards; `beside` puts it on that folder's disk, which has the room."""
    if beside is not None:
        with _unwritable_is_input(str(beside)):
            beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=beside) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _unwritable_is_input(uri: str) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(
            f"{uri}: cannot be written ({error.strerror}); give a folder that you may write to"
        ) from error
