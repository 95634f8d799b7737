"""Writing: a file is seen whole or not at all.

On a local file system it is written under a temporary name, synced and renamed. On an object store an upload
appears when it is complete; one that is tried again begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.storage.listing import exists
from dalle2_train.storage.places import join, local_path, open_fs
from dalle2_train.storage.reading import CHUNK, read_bytes, sha256_bytes, sha256_file
from dalle2_train.storage.retry import MissingError, UnreachableError, patiently
from dalle2_train.storage.staging import TEMPORARY, unwritable_is_input


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
    digest = hashlib.sha256()
    with local.open("rb") as source:
        _publish_local(uri, path, lambda stream: _copy(source, stream, digest.update))
    return digest.hexdigest()


def _copy(source: IO[bytes], target: IO[bytes], seen: Callable[[bytes], None]) -> None:
    while chunk := source.read(CHUNK):
        seen(chunk)
        target.write(chunk)


def _publish_local(uri: str, path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    with unwritable_is_input(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}-{path.name}")
        try:
            with temporary.open("wb") as stream:
                write(stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
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
    for left in sorted(folder.rglob(f"{TEMPORARY}*")) if folder is not None else ():
        with suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime >= min_age_seconds:
                remove(str(left))


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
