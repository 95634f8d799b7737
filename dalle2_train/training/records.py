"""What a run writes about itself while it goes: every step's loss, and how far it is."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dalle2_train import storage
from dalle2_train.checkpoints.layout import losses_uri, progress_uri
from dalle2_train.redaction import redact
from dalle2_train.storage.lines import JsonLines

Put = Callable[[str, Any], object]

# A local file is cheap to replace; an object store is asked less often.
_SECONDS_BETWEEN_WRITES = {True: 1.0, False: 15.0}


def report_once(seen: set[str], what: str, error: Exception) -> None:
    """Say on stderr that something beside the training failed, the first time."""
    if what not in seen:
        seen.add(what)
        told = redact(f"{what} failed and is ignored from here on: {type(error).__name__}: {error}")
        print(told, file=sys.stderr)


class LossRecord(JsonLines):
    """NAME/losses.jsonl: one line a step, rewound to the checkpoint that a restart goes on from."""

    def __init__(self, run_uri: str, completed_steps: int) -> None:
        super().__init__(losses_uri(run_uri), lambda line: line["step"] <= completed_steps)


class Progress:
    """NAME/progress.json, replaced as a whole and seldom enough to cost nothing."""

    def __init__(
        self, run_uri: str, num_steps: int, put: Put, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """put: publishes a JSON value."""
        self.uri, self.num_steps, self._put, self._clock = progress_uri(run_uri), num_steps, put, clock
        self._interval = _SECONDS_BETWEEN_WRITES[storage.local_path(run_uri) is not None]
        self._times: deque[float] = deque(maxlen=51)
        self._last_write = -float("inf")

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the last steps, all that happens between them included."""
        if len(self._times) < 2:
            return None
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)

    def update(self, step: int, loss: float) -> bool:
        """A step is done. Was it time to write?"""
        now = self._clock()
        self._times.append(now)
        is_due = now - self._last_write >= self._interval
        if is_due:
            self._last_write = now
            self.write("running", step, loss)
        return is_due

    def write(self, status: str, step: int, loss: float | None) -> None:
        seconds = self.seconds_per_step
        self._put(
            self.uri,
            {
                "status": status,
                "step": step,
                "num_steps": self.num_steps,
                "loss": loss if loss is not None and math.isfinite(loss) else None,
                "seconds_per_step": seconds,
                "seconds_left": None if seconds is None else seconds * (self.num_steps - step),
                "updated": time.time(),
            },
        )
