"""Trainings of equal CPU time: how many steps fit into it, and how much was really used over all attempts."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dalle2_train import storage

# Steps of the two short runs whose difference is the price of a step, without that of starting.
_FEW, _MORE = 5, 35

Clock = Callable[[], float]


@dataclass(frozen=True)
class Calibration:
    """What short runs showed of a training."""

    num_steps: int
    """That fit into the budget, 1 at least."""
    start_seconds: float
    """CPU seconds before the first step and after the last."""
    step_seconds: float
    """CPU seconds a step."""


def calibrate(
    budget: float, train: Callable[[int, int], None], clock: Clock = time.process_time
) -> Calibration:
    """The number of steps that takes `budget` CPU seconds, so that a schedule which ends with them ends in time.

    `train`: called as train(attempt, num_steps), trains anew in this process; its first call is not measured, for it
    pays for imports and cold caches.
    """
    seconds = []
    for attempt, num_steps in enumerate((_FEW, _FEW, _MORE)):
        before = clock()
        train(attempt, num_steps)
        seconds.append(clock() - before)
    # A busy machine may make the longer run the cheaper one: then all of it is steps.
    step = (seconds[2] - seconds[1]) / (_MORE - _FEW)
    if step <= 0:
        step = seconds[2] / _MORE
    start = max(0.0, seconds[1] - _FEW * step)
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
