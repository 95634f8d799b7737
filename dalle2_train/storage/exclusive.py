"""What only the first of several processes does. On a local file system a hard link tells who that is."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from dalle2_train.storage.places import local_path
from dalle2_train.storage.retry import patiently
from dalle2_train.storage.writing import staged

# FAT, and what some object stores are mounted by.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def publish_new(uri: str, data: bytes) -> bool:
    """Publishes `data` unless there is a file; of several processes, with data of its own each, one is told True.

    NotImplementedError where the storage cannot tell: object stores, and file systems without hard links.
    """
    path = local_path(uri)
    is_first = None if path is None else patiently(uri, lambda: _link(uri, path, data))
    if is_first is None:
        raise NotImplementedError(f"{uri}: this storage does not tell who was first")
    return is_first


def _link(uri: str, path: Path, data: bytes) -> bool | None:
    with staged(uri, path, lambda stream: stream.write(data)) as (temporary, _):
        try:
            os.link(temporary, path)
        except FileExistsError:
            with suppress(FileNotFoundError):
                return path.read_bytes() == data  # ours, if the answer to an earlier attempt was lost
            return False
        except OSError as error:
            if error.errno in _NO_LINKS:
                return None
            raise
    return True


def rename(uri: str, to: str) -> None:
    """Puts a local file in the place of another, at once. Missing, perhaps since it was done before: MissingError."""
    source, target = local_path(uri), local_path(to)
    assert source is not None and target is not None, "no object store renames"
    patiently(uri, lambda: os.replace(source, target))
