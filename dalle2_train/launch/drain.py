"""How a worker hears that its machine is about to go: Ray drains the node, or the process is told to terminate."""

import faulthandler
import os
import signal
import threading

import ray.train

_LOOK_SECONDS = 2.0


class DrainWatch:
    """Is a machine of this training about to go? Every worker has one, from the beginning to the end."""

    def __init__(self) -> None:
        self._drained = threading.Event()
        self._signals, writing = os.pipe()
        # Only a process's main thread may have Python's handlers, and here it is Ray's. What this one writes is a
        # traceback; that something is written is all that counts.
        faulthandler.register(signal.SIGTERM, file=writing, all_threads=False, chain=False)
        for look in (self._read, self._ask):
            threading.Thread(target=look, name="drain", daemon=True).start()

    def __call__(self) -> bool:
        return self._drained.is_set()

    def _read(self) -> None:
        os.read(self._signals, 1)
        self._drained.set()

    def _ask(self) -> None:
        """Ray answers once all workers have asked."""
        while not self._drained.wait(_LOOK_SECONDS):
            try:
                is_preempted = ray.train.get_preemption_info() is not None
            except Exception:  # a worker is gone, or Ray did not answer for once
                continue
            if is_preempted:
                self._drained.set()
