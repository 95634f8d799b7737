"""A bounded folder on a local disk that keeps what was read of shards, for all processes of a machine.

Shards are kept in pages of a fixed size, so that readers whose ranges differ from epoch to epoch share them. A page
is a file named by the shard's full URI, its digest and the page's number; it begins with a checksum of its bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dalle2_train import storage
from dalle2_train.data.shards.manifest import Shard
from dalle2_train.storage.staging import TEMPORARY

PAGE = 1 << 20
"""Bytes."""
_CHECKSUM = 4
# Eviction makes room for a while: to look at all pages for each new one would cost more than the reads.
_KEPT_SHARE = 0.9
_LEDGER = "bytes"
_PAGE = f"{TEMPORARY}page-"
_PATIENCE_SECONDS = 1.0

_log = logging.getLogger(__name__)
_failing: set[Path] = set()
"""Folders of which it was said."""

Read = Callable[[int, int], bytes]
"""(start, length) → these bytes of the shard, fewer where it ends."""


@dataclass(frozen=True)
class PageCache:
    """Keeps at most `num_bytes` in `folder`; what was used longest ago goes first."""

    folder: Path
    num_bytes: int

    def read(self, uri: str, shard: Shard, start: int, length: int, read: Read) -> bytes:
        """The bytes that `read(start, length)` gives, from pages that are here as far as possible."""
        end = min(start + length, shard.size)
        numbers = range(start // PAGE, -(-end // PAGE))
        pages = {number: self._load(self._file(uri, shard, number)) for number in numbers}
        for gap in _gaps(pages):
            first, last = gap[0] * PAGE, min((gap[-1] + 1) * PAGE, shard.size)
            data = read(first, last - first)
            for number in gap:
                pages[number] = data[number * PAGE - first : (number + 1) * PAGE - first]
            if len(data) == last - first:
                self._keep([(self._file(uri, shard, number), pages[number] or b"") for number in gap])
        found = b"".join(page or b"" for page in pages.values())
        return found[start - numbers.start * PAGE : end - numbers.start * PAGE]

    def forget(self, uri: str, shard: Shard, start: int, length: int) -> None:
        """Removes the pages of a range, which turned out to be damaged."""
        for number in range(start // PAGE, -(-(start + length) // PAGE)):
            self._file(uri, shard, number).unlink(missing_ok=True)

    def _file(self, uri: str, shard: Shard, number: int) -> Path:
        name = hashlib.sha256(f"{uri}\n{shard.sha256}\n{number}".encode()).hexdigest()[:40]
        return self.folder / name[:2] / name[2:]

    def _load(self, file: Path) -> bytes | None:
        try:
            data = file.read_bytes()
            os.utime(file)  # it was used now
        except OSError:
            return None
        page = data[_CHECKSUM:]
        return page if zlib.crc32(page).to_bytes(_CHECKSUM, "little") == data[:_CHECKSUM] else None

    def _keep(self, pages: list[tuple[Path, bytes]]) -> None:
        """A disk that is full or gone costs the cache, not the run."""
        try:
            # Others do not write meanwhile: what they had been promised room for could not be seen by an eviction.
            with self._locked() as ledger:
                if self._make_room(sum(len(page) + _CHECKSUM for _, page in pages), ledger):
                    for file, page in pages:
                        self._write(file, page)
        except OSError as error:
            if self.folder not in _failing:
                _failing.add(self.folder)
                _log.warning("%s: not all is kept there: %s", self.folder, error)

    def _write(self, file: Path, page: bytes) -> None:
        file.parent.mkdir(exist_ok=True)
        temporary = self.folder / f"{_PAGE}{uuid.uuid4().hex}"
        temporary.write_bytes(zlib.crc32(page).to_bytes(_CHECKSUM, "little") + page)
        temporary.rename(file)

    def _make_room(self, wanted: int, ledger: Path) -> bool:
        """Reserves `wanted` bytes; False where there is no room for as many at all."""
        if wanted > self.num_bytes * _KEPT_SHARE:
            return False
        told = ledger.read_text()
        used = int(told) if told.isdigit() else self._evict(self.num_bytes)
        if used + wanted > self.num_bytes:
            used = self._evict(int(self.num_bytes * _KEPT_SHARE) - wanted)
        ledger.write_text(str(used + wanted))
        return True

    def _evict(self, most: int) -> int:
        """Removes pages until at most so many bytes are left; returns how many are. By whoever has the lock."""
        pages, used = [], 0
        for file in self.folder.glob("**/*"):
            try:
                entry = file.stat()
            except FileNotFoundError:
                continue
            if file.name.startswith(_PAGE):  # a killed process left it: who writes pages has the lock
                file.unlink(missing_ok=True)
            elif file.parent != self.folder and file.is_file():
                pages.append((entry.st_mtime, entry.st_size, file))
                used += entry.st_size
        for _, size, file in sorted(pages):
            if used <= most:
                break
            file.unlink(missing_ok=True)
            used -= size
        return used

    @contextmanager
    def _locked(self) -> Iterator[Path]:
        """The file that says how many bytes are kept, for one process at a time. OSError where another keeps it."""
        with (self.folder / _LEDGER).open("a") as stream:
            _lock(stream)
            yield self.folder / _LEDGER


def open_cache(folder: str | None, gigabytes: float) -> PageCache | None:
    """A cache in that folder, if one is asked for. A folder that cannot be written: InputError."""
    if folder is None:
        return None
    storage.check_writable(folder)
    return PageCache(Path(folder), int(gigabytes * 1e9))


def _lock(stream: IO[str]) -> None:
    """Waits a moment: who has it may be frozen, or stuck on its disk. Then BlockingIOError."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(0.005)


def _gaps(pages: dict[int, bytes | None]) -> Iterator[list[int]]:
    """Runs of neighbours that are missing: each is one read."""
    gap: list[int] = []
    for number, page in pages.items():
        if page is None:
            gap.append(number)
        elif gap:
            yield gap
            gap = []
    if gap:
        yield gap
