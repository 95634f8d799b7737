"""Local folders for what is on its way; those of processes that were killed are removed by the next one.

A living process holds a lock on its folder, which ends with the process, in whatever container it was.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

_PREFIX, _LOCK = "dalle2-train-", ".lock"


class Scratch:
    """A new, empty folder of this process, until it is closed."""

    def __init__(self) -> None:
        sweep_scratch()
        self._lock: int | None = None
        while self._lock is None:  # another may have taken it for one that was left behind
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _locked(self.path)

    def close(self) -> None:
        """Remove it with all that it holds. May be called again."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep_scratch() -> None:
    """Remove the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _locked(folder) if (folder / _LOCK).exists() else None
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock; None where another process does, or has removed it."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    if not (folder / _LOCK).exists():
        os.close(descriptor)
        return None
    return descriptor
