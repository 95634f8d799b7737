"""Trainings of equal CPU time: how many steps fit into it, and how much was really used over all attempts."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from dalle2_train import storage

# Steps of a short run, and by how many a longer one exceeds it: their price is the difference, without that of a start.
_FEW, _FURTHER = 5, 30

Clock = Callable[[], float]


@dataclass(frozen=True)
class Calibration:
    """What short runs showed of a training."""

    num_steps: int
    """That fit into the budget, 1 at least."""
    start_seconds: float
    """CPU seconds before the first step and after the last, and what the first epoch takes more than another: in it
    pictures are decoded, which later ones find in memory."""
    step_seconds: float
    """CPU seconds a step, of a later epoch where the budget reaches so far."""


def calibrate(
    budget: float, train: Callable[[int, int], None], epoch_steps: int, clock: Clock = time.process_time
) -> Calibration:
    """The number of steps that takes `budget` CPU seconds, so that a schedule which ends with them ends in time.

    `train`: called as train(attempt, num_steps), trains anew in this process; its first call is not measured, for it
    pays for imports and cold caches. epoch_steps: the steps in which every sample is met once.
    """
    attempts = count(1)

    def price(num_steps: int) -> Calibration:
        """By a run of so many steps, and one that takes some further."""
        seconds = []
        for steps in (num_steps, num_steps + _FURTHER):
            before = clock()
            train(next(attempts), steps)
            seconds.append(clock() - before)
        return _fit(budget, num_steps, *seconds)

    train(0, _FEW)
    found = price(_FEW)
    if found.num_steps > epoch_steps > _FEW:
        found = price(epoch_steps)
    return found


def _fit(budget: float, num_steps: int, seconds: float, seconds_of_more: float) -> Calibration:
    """What runs of `num_steps` and of `_FURTHER` more say."""
    step = (seconds_of_more - seconds) / _FURTHER
    # A busy machine may make the longer run the cheaper one: then all of it is steps.
    if step <= 0:
        step = seconds_of_more / (num_steps + _FURTHER)
    start = max(0.0, seconds - num_steps * step)
    return Calibration(max(1, round((budget - start) / step)), start, step)


class CpuMeter:
    """A context that adds this process's CPU seconds to the number in a file, now and then and at the end.

    What is trained in the context has to be trained in this process. After a kill the next meter of the file goes on
    from its last reading, so that steps done twice count twice.
    """

    def __init__(self, uri: str, interval: float = 5.0, clock: Clock = time.process_time) -> None:
        self._uri, self._interval, self._clock = uri, interval, clock
        self._before = float(storage.read_json(uri)["cpu_seconds"]) if storage.exists(uri) else 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> "CpuMeter":
        self._started = self._clock()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._write()

    @property
    def seconds(self) -> float:
        """Of all attempts so far."""
        return self._before + self._clock() - self._started

    def _keep(self) -> None:
        while not self._done.wait(self._interval):
            self._write()

    def _write(self) -> None:
        storage.publish_json(self._uri, {"cpu_seconds": self.seconds})
