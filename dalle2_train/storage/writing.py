"""Writing: a file is seen whole or not at all.

On a local file system it is written under a temporary name, synced and renamed. On an object store an upload
appears when it is complete; one that is tried again begins anew.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.storage.listing import exists
from dalle2_train.storage.places import join, local_path, open_fs
from dalle2_train.storage.reading import CHUNK, open_read, read_bytes, sha256_bytes, sha256_file
from dalle2_train.storage.retry import MissingError, UnreachableError, is_transient, patiently
from dalle2_train.storage.staging import TEMPORARY, unwritable_is_input

T = TypeVar("T")


def publish_bytes(uri: str, data: bytes) -> str:
    """Writes `data` so that a reader sees the old file or the whole new one. Returns its SHA-256."""
    path = local_path(uri)
    if path is None:
        fs, remote = open_fs(uri)
        patiently(uri, lambda: fs.pipe_file(remote, data))
    else:
        _publish_local(uri, path, lambda stream: stream.write(data))
    return sha256_bytes(data)


def publish_json(uri: str, value: Any) -> str:
    """Publishes `value` as indented JSON (NaN is refused). Returns the SHA-256 of the text."""
    return publish_bytes(uri, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def publish_file(local: Path, uri: str) -> str:
    """Copies a local file to `uri`, visible only when whole. Returns its SHA-256."""
    path = local_path(uri)
    if path is None:
        fs, remote = open_fs(uri)
        patiently(uri, lambda: fs.put_file(str(local), remote))
        return sha256_file(local)
    return _publish_local(uri, path, lambda stream: _copy(local, stream))


def _copy(source: Path, target: IO[bytes]) -> str:
    """From the beginning, as what is tried again has to be. Returns the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    with open_read(str(source)) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()


def _publish_local(uri: str, path: Path, write: Callable[[IO[bytes]], T]) -> T:
    """What `write` returns, which is called anew for each attempt, with an empty file."""

    def attempt() -> T:
        with staged(uri, path, write) as (temporary, written):
            try:
                os.replace(temporary, path)
            except FileNotFoundError as error:
                # A server that began anew was asked twice and answered once; written again, it is there in any case.
                raise OSError(errno.ESTALE, "gone while it was renamed", str(temporary)) from error
        return written

    return patiently(uri, attempt)


@contextmanager
def staged(uri: str, path: Path, write: Callable[[IO[bytes]], T]) -> Iterator[tuple[Path, T]]:
    """(a synced file beside `path` with what `write` wrote, what `write` returned); the file is gone afterwards."""
    with unwritable_is_input(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
        try:
            with temporary.open("wb") as stream:
                written = write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary, written
        finally:
            with suppress(OSError):  # a sweep finds it
                temporary.unlink(missing_ok=True)


def remove(uri: str) -> None:
    """Removes a file or a whole folder; what is not there is no error."""
    fs, path = open_fs(uri)
    if not exists(uri):
        return
    try:
        patiently(uri, lambda: fs.rm(path, recursive=True))
    except MissingError:  # another was quicker
        return


def sweep(uri: str, min_age_seconds: float = 0.0) -> None:
    """Removes what killed processes were writing under `uri`, if it has not been touched for so long.

    Without a least age nothing else may write there meanwhile. An object store shows nothing of an upload that did not
    end.
    """
    folder = local_path(uri)
    for left in patiently(uri, lambda: _left_over(folder)) if folder is not None else ():
        with suppress(MissingError):  # whose it was, was quicker
            if time.time() - patiently(str(left), partial(_touched, left)) >= min_age_seconds:
                remove(str(left))


def _left_over(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=_raise_if_it_passes):
        found += [Path(place, name) for name in (*folders, *files) if name.startswith(TEMPORARY)]
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
    return sorted(found)


def _raise_if_it_passes(error: OSError) -> None:
    """Folders that are gone meanwhile, or that we may not read, are passed over."""
    if is_transient(error):
        raise error


def _touched(left: Path) -> float:
    """Seconds since 1970. A folder's own time tells of its names alone, not of a file in it that grows."""
    return max(path.lstat().st_mtime for path in (left, *left.rglob("*")))


def check_writable(uri: str) -> None:
    """Writes, reads back and removes a small file under `uri`. InputError when that cannot be done."""
    probe = join(uri, f"{TEMPORARY}probe-{uuid.uuid4().hex}")
    try:
        publish_bytes(probe, b"probe")
        whole = read_bytes(probe) == b"probe"
        remove(probe)
    except UnreachableError:
        raise
    except Exception as error:  # every file system has its own kinds of refusal
        reason = getattr(error.__cause__, "strerror", None) or error
        told = redact(f"{uri}: cannot be written ({reason}); give a folder that you may write to")
        raise InputError(told) from error
    if not whole:
        raise InputError(f"{redact(uri)}: what was written could not be read back; give other storage")


def check_could_write(uri: str) -> None:
    """InputError when `check_writable` would raise one, found out without leaving even an empty folder."""
    path = local_path(uri)
    if path is None:
        check_writable(uri)
        return
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"{uri}: cannot be written ({there} is no folder that you may write to); give another"
        )
