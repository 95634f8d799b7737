"""Who trains a run, as its lease says it, and whether that process still lives."""

import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dalle2_train import storage
from dalle2_train.errors import InputError

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The states of /proc/PID/stat in which a process runs no more, though its number is taken: a killed one is a zombie
# until its parent asks how it ended, which some never do.
_ENDED = "ZXx"


@dataclass(frozen=True)
class Holder:
    """Who trains."""

    id: str
    host: str
    boot: str
    """Of that host: started anew, or in another container of that name, it is another one."""
    pid: int
    started: float
    """When its process began, by a clock that nobody sets: the pid may be another's by now."""
    beat: int = 0
    """Rises as long as it lives."""

    @classmethod
    def me(cls) -> "Holder":
        """This process, by a new id."""
        started = _start_of(os.getpid())
        assert started is not None
        return cls(uuid.uuid4().hex, *_here(), os.getpid(), started)

    @classmethod
    def of(cls, data: bytes) -> "Holder | None":
        """As `to_bytes` wrote it; None where that was another version, or nobody at all."""
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError, RecursionError):
            return None

    def to_bytes(self) -> bytes:
        """JSON, for people too."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @property
    def is_here(self) -> bool:
        """Is its machine this one?"""
        return (self.host, self.boot) == _here()

    @property
    def is_dead(self) -> bool:
        """True where this machine knows it to be; False where it lives, or where nobody can tell from here."""
        return self.is_here and _start_of(self.pid) != self.started


def read_holder(uri: str, other_than: str | None = None) -> Holder | None:
    """Who holds the lease at `uri`; None where nobody does, or where it is the holder of that id."""
    if not storage.exists(uri):
        return None
    try:
        found = Holder.of(storage.read_bytes(uri))
    except InputError:  # removed meanwhile
        return None
    return None if found is None or found.id == other_than else found


def _here() -> tuple[str, str]:
    """(name, boot) of this machine, as far as process ids mean the same: containers have their own."""
    if not _BOOT_ID.exists():
        return socket.gethostname(), ""
    return socket.gethostname(), f"{_BOOT_ID.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"


def _start_of(pid: int) -> float | None:
    """Ticks since this machine was started, elsewhere than on Linux seconds since 1970; None where it has ended."""
    if not _BOOT_ID.exists():
        return _start_by_psutil(pid)
    try:
        # The fields from the third on; the second, in parentheses, may have spaces. psutil adds what the wall clock
        # says.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in _ENDED else float(fields[18])


def _start_by_psutil(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
