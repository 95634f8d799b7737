"""What is there: whether a file exists, its size and version, and the files of a folder or a pattern."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.storage.places import absolute, can_list, full_uri, local_path, open_fs
from dalle2_train.storage.retry import MissingError, RefusedAccessError, http_status, is_transient, patiently
from dalle2_train.storage.staging import TEMPORARY

_REQUESTS_AT_ONCE = 16
_MAGIC = re.compile(r"[*?\[]")
_ABSENCES = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBADF}


class ListingError(Exception):
    """A folder could not be listed for now. No OSError: those fsspec takes for a folder without files, silently."""


class _LocalFolders(LocalFileSystem):
    def ls(self, path: Any, detail: bool = False, **options: Any) -> Any:
        try:
            return super().ls(path, detail, **options)
        except OSError as error:
            if is_transient(error):
                raise ListingError(str(error)) from error
            raise


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
        return local_mode(uri, path) is not None
    fs, remote = open_fs(uri)
    try:
        # fs.exists() would call a server that is down an absence.
        patiently(uri, lambda: fs.info(remote))
    except MissingError:
        return False
    except RefusedAccessError as error:
        if http_status(error) is None:
            raise  # nobody was asked: there are no credentials
        return False  # without leave to list, S3 answers so for what is not there
    return True


def local_mode(uri: str, path: Path) -> int | None:
    """st_mode of what is at `path`, None where nothing is.

    Path.exists() and is_file() raise what passes at once, and from Python 3.14 on call it an absence.
    """
    return patiently(uri, lambda: _mode(path))


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENCES:
            return None
        raise
    except ValueError:  # no file can have such a name
        return None


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
    """What matches `pattern` (*, ?, [abc], ** for any depth), sorted, as full URIs; half-written files are not."""
    fs, path = _listing_fs(pattern)
    folder = _MAGIC.split(absolute(pattern), maxsplit=1)[0].rpartition("/")[0]
    root = open_fs(folder)[1]
    found = sorted(str(name) for name in patiently(pattern, lambda: fs.glob(path)))
    return [full_uri(folder, root, name) for name in found if _is_listed(name, root, "")]


def _listing_fs(uri: str) -> tuple[Any, str]:
    if not can_list(uri):
        raise InputError(f"{redact(uri)}: a web server does not list its files; name them, "
                         "as in https://host/set/{00000..00099}.tar")  # fmt: skip
    fs, path = open_fs(uri)
    if local_path(uri) is not None:
        return _LocalFolders(), path
    # A listing kept by fsspec would hide what another process has published since.
    fs.invalidate_cache()
    return fs, path


def _is_listed(name: str, folder: str, suffix: str) -> bool:
    """Not so the staging of a process that was killed, or that still writes."""
    return name.endswith(suffix) and f"/{TEMPORARY}" not in name[len(folder) :]


def _stat_of(uri: str, info: dict[str, Any]) -> Stat:
    if info["size"] is None and info["type"] == "file":
        raise InputError(f"{redact(uri)}: the server does not tell its size; copy the file to other storage")
    version = info.get("ETag") or info.get("etag") or info.get("Last-Modified")
    return Stat(int(info["size"] or 0), str(version).strip('"') if version else None)
