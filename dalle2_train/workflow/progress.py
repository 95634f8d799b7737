"""One line per stage: what, how far, time left, loss. In place on a terminal, now and then in a log."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Protocol

from dalle2_train import storage
from dalle2_train.checkpoints.layout import progress_uri

SECONDS_BETWEEN_LOG_LINES = 20.0
_FRESH_SECONDS = 120.0
"""A training whose last word is older may be gone, and has no time left."""


@dataclass(frozen=True)
class Status:
    """How far something is."""

    done: int
    total: int | None
    """None: not known beforehand."""
    loss: float | None = None
    seconds_left: float | None = None
    what: str = ""
    from_start: bool = True
    """Whether all that is done was done since the line began; else the time so far says nothing of what is left."""


class Tell(Protocol):
    """How a stage's work says how far it is."""

    def __call__(self, done: int, total: int | None, what: str = "") -> None: ...


Watch = Callable[[], Status | None]


def watch_run(run_uri: str, since: float | None = None) -> Watch:
    """Asks a training run how far it is, whichever process trains it. None until it has said something.

    since: seconds since 1970; what it said before is another attempt's last word, and not shown. None: now.
    """
    since = time.time() if since is None else since

    def watch() -> Status | None:
        uri = progress_uri(run_uri)
        if not storage.exists(uri):
            return None
        told = storage.read_json(uri)
        if told.get("updated", 0.0) < since:
            return None
        is_going_on = told.get("status") == "running" and time.time() - told["updated"] < _FRESH_SECONDS
        left = told.get("seconds_left") if is_going_on else None
        return Status(told["step"], told["num_steps"], told.get("loss"), left, from_start=False)

    return watch


class Line:
    """The line of one stage on stderr."""

    def __init__(self, name: str, done: str = "done in", stopped: str = "stopped after") -> None:
        """done, stopped: what is said of a block that came to its end, and of one that did not, before how long it
        took."""
        self.name, self._done, self._stopped = name, done, stopped
        self._in_place = sys.stderr.isatty()
        self._started = time.monotonic()
        self._last = -SECONDS_BETWEEN_LOG_LINES
        self._lock = threading.Lock()

    @contextmanager
    def following(self, watch: Watch | None, first: Status | None = None) -> Iterator[None]:
        """Show `first`, then what `watch` says, every second, until the block ends."""
        self.show(first)
        with nullcontext() if watch is None else _every_second(lambda: self.show(watch())):
            yield

    def show(self, status: Status | None) -> None:
        """Say how far the stage is, unless it was just said."""
        now = time.monotonic()
        pause = 0.2 if self._in_place else SECONDS_BETWEEN_LOG_LINES
        with self._lock:
            if now - self._last < pause:
                return
            self._last = now
            self._write(describe(status, now - self._started), last=False)

    def tell(self, done: int, total: int | None, what: str = "") -> None:
        """`show` in plain numbers; the time left is only known where all is one count."""
        self.show(Status(done, total, what=what))

    def skip(self, seconds: float) -> None:
        self._write(f"done before, in {clock(seconds)}", last=True)

    def end(self, seconds: float, *, done: bool) -> None:
        self._write(f"{self._done if done else self._stopped} {clock(seconds)}", last=True)

    def _write(self, text: str, *, last: bool) -> None:
        start, end = ("\r\x1b[K", "\n" if last else "") if self._in_place else ("", "\n")
        print(f"{start}{self.name:<12} {text}", end=end, file=sys.stderr, flush=True)


@contextmanager
def on_a_line(
    name: str,
    watch: Watch | None = None,
    done: str = "done in",
    stopped: str = "stopped after",
    first: Status | None = None,
) -> Iterator[Line]:
    """A line that follows the block, by what `watch` or the block says, and then tells how long it took. first: what it
    begins with."""
    line, started, is_done = Line(name, done, stopped), time.monotonic(), False
    try:
        with line.following(watch, first):
            yield line
        is_done = True
    finally:
        line.end(time.monotonic() - started, done=is_done)


def describe(status: Status | None, elapsed: float) -> str:
    """'  312/800   39 %  loss 0.412  1:12 left'; without a status, how long it has been going."""
    if status is None:
        return f"… {clock(elapsed)}"
    parts, left = [status.what] if status.what else [], status.seconds_left
    if status.total is None:
        return "  ".join([*parts, f"{status.done:>6}", clock(elapsed)])
    if left is None and status.done and status.from_start and not status.what:
        left = elapsed / status.done * (status.total - status.done)
    parts += [f"{status.done:>6}/{status.total}", f"{100 * status.done // max(status.total, 1):>3} %"]
    parts += [] if status.loss is None else [f"loss {status.loss:.4f}"]
    parts += [] if left is None else [f"{clock(left)} left"]
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Minutes and seconds: 72 → '1:12'."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


@contextmanager
def _every_second(tick: Callable[[], None]) -> Iterator[None]:
    done = threading.Event()

    def loop() -> None:
        while not done.wait(1.0):
            with suppress(Exception):  # a storage that does not answer now may answer in a second
                tick()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
