"""How much memory this process and all that it started use at the most."""

import contextlib
import os
import threading

import psutil


class PeakMemory:
    """A context that samples the process tree; `gigabytes` (10⁹ bytes) is the peak so far.

    Pages that several processes share count once (PSS) where the system tells, so Ray's store is not counted twice.
    """

    def __init__(self, interval: float = 4.0) -> None:
        self.gigabytes = 0.0
        self._interval = interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.gigabytes = max(self.gigabytes, tree_memory() / 1e9)
            if self._done.wait(self._interval):
                return


def tree_memory() -> int:
    """Bytes that this process and its descendants hold now."""
    root = psutil.Process(os.getpid())
    return sum(_memory(process) for process in [root, *root.children(recursive=True)])


def _memory(process: psutil.Process) -> int:
    # A process may end, or belong to somebody else, between being listed and being asked.
    with contextlib.suppress(psutil.Error, OSError), open(f"/proc/{process.pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) * 1024 for line in rollup if line.startswith("Pss:"))
    with contextlib.suppress(psutil.Error):
        return process.memory_info().rss
    return 0
