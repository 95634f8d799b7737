"""Where a rank's time goes, step by step: waiting for data, for a checkpoint, drawing pictures, and the step itself."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

Beside = Literal["data", "checkpoint", "pictures"]


class Lap(NamedTuple):
    """Seconds from the end of one step to the end of the next."""

    total: float
    data: float
    """Waiting for a batch."""
    checkpoint: float
    """Waiting for a checkpoint: for its copy to be made, and for the one before to be written."""
    pictures: float

    @property
    def useful(self) -> float:
        """What is left for the step."""
        return self.total - self.data - self.checkpoint - self.pictures


class Stopwatch:
    """Of a rank's training thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._beside = dict.fromkeys(("data", "checkpoint", "pictures"), 0.0)

    @contextmanager
    def doing(self, what: Beside) -> Iterator[None]:
        """The block's time is no step's."""
        before = self._clock()
        try:
            yield
        finally:
            self._beside[what] += self._clock() - before

    @property
    def data_seconds(self) -> float:
        """Waited for data since the last lap."""
        return self._beside["data"]

    def lap(self) -> Lap:
        """What went since the last one, and begin the next."""
        now = self._clock()
        found = Lap(now - self._began, **self._beside)
        self._began = now
        self._beside = dict.fromkeys(self._beside, 0.0)
        return found
