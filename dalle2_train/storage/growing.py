"""A local file that grows at its end. What fails in passing is done again; nothing is doubled or torn by it."""

import os
from contextlib import suppress
from pathlib import Path

from dalle2_train.storage.retry import patiently

_MOST_UNSYNCED = 1 << 20
"""Bytes that are kept in memory; more are made to outlive the machine before anybody asks."""


class GrowingFile:
    """What is appended to `path`, which exists.

    After a failure nobody knows what the file has of what came since the last sync: a kernel drops what it could not
    write, and then calls the next sync a success. So that is kept, and written again to where it belongs. One thread
    at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail = bytearray()  # what came since the last sync
        self._num_written = 0  # bytes of it that are in the file
        self._descriptor: int | None = patiently(str(path), lambda: os.open(path, os.O_WRONLY))
        found = os.fstat(self._descriptor)
        self._inode, self._num_synced = found.st_ino, found.st_size
        self.closed = False

    def append(self, data: bytes) -> None:
        """Write `data` at the end. OSError where the file turns out to be another one by now."""
        if self.closed:
            raise ValueError(f"{self.path}: was closed, and cannot be appended to")
        self._tail += data
        patiently(str(self.path), self._write)
        if len(self._tail) > _MOST_UNSYNCED:
            self.sync()

    def sync(self) -> None:
        """Make what was appended outlive this machine."""
        patiently(str(self.path), lambda: self._write(and_sync=True))
        self._num_synced, self._num_written, self._tail = self._num_synced + len(self._tail), 0, bytearray()

    def close(self) -> None:
        """Sync, and append no more. May be called again."""
        if not self.closed:
            self.sync()
            self.closed = True
            self._let_go()

    def abandon(self) -> None:
        """Append no more, whatever of it is in the file."""
        self.closed = True
        self._let_go()

    def _write(self, and_sync: bool = False) -> None:
        try:
            descriptor = self._opened()
            while self._num_written < len(self._tail):
                rest, place = self._tail[self._num_written :], self._num_synced + self._num_written
                self._num_written += os.pwrite(descriptor, rest, place)
            if and_sync:
                os.fsync(descriptor)
        except OSError:
            self._let_go()
            raise

    def _opened(self) -> int:
        """Opened again after a failure, as a stale handle stays stale; what has taken its place is left alone."""
        if self._descriptor is None:
            descriptor = os.open(self.path, os.O_WRONLY)
            found = os.fstat(descriptor)
            if found.st_ino != self._inode or found.st_size < self._num_synced:
                os.close(descriptor)
                raise OSError(f"{self.path}: was replaced while it was written; see whether another process writes "
                              "there, and give the command again")  # fmt: skip
            self._descriptor = descriptor
        return self._descriptor

    def _let_go(self) -> None:
        self._num_written = 0
        if self._descriptor is not None:
            with suppress(OSError):  # what was synced needs nothing more
                os.close(self._descriptor)
            self._descriptor = None
