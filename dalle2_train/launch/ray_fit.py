"""`TorchTrainer.fit` beside the main thread, which hears of a stop where no worker can, and tells of new starts."""

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait

import ray.train
from ray.train.torch import TorchTrainer

from dalle2_train import storage
from dalle2_train.checkpoints.layout import progress_uri, stop_uri
from dalle2_train.errors import PreemptedError
from dalle2_train.training.goodput import Attempt, read_attempts

_LOOK_SECONDS = 5.0
WAITING_SECONDS = 30.0
"""Workers that are there have ended by then, or say that they are still at it."""


def fit_trainer(trainer: TorchTrainer, looks: Sequence[Callable[[], object]]) -> ray.train.Result:
    """`trainer.fit()` in a thread: in the main one Ray would take Ctrl-C for itself, and keep it ever after.

    looks: called now and then until it ends; what they raise is raised.
    """
    future: Future[ray.train.Result] = Future()

    def work() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ray-train", daemon=True).start()
    while not wait([future], _LOOK_SECONDS).done:
        for look in looks:
            look()
    return future.result()


class StartsTold:
    """Tells the driver's user from which step workers go on, once they have done their first: what they say themselves
    is in Ray's logs alone."""

    def __init__(self, run_uri: str) -> None:
        self._run_uri, self._is_first = run_uri, True
        attempts = self._read()
        self._num_known = None if attempts is None else len(attempts)

    def __call__(self) -> None:
        attempts = self._read()
        if attempts is None:
            return
        if self._num_known is None:
            self._num_known = len(attempts)
        for attempt in attempts[self._num_known :]:
            self._tell(attempt.resumed_from)
        self._num_known = len(attempts)

    def _read(self) -> list[Attempt] | None:
        """None where the storage does not answer now; it is asked again at the next look."""
        try:
            return read_attempts(self._run_uri)
        except Exception:
            return None

    def _tell(self, step: int) -> None:
        if not self._is_first:
            say(f"{self._run_uri}: workers were started again, going on from step {step}")
        elif step > 0:
            say(f"{self._run_uri}: going on from step {step}")
        self._is_first = False


def say(text: str) -> None:
    """On stderr, below the line that shows how far the training is."""
    print("\n" * sys.stderr.isatty() + text, file=sys.stderr, flush=True)


class StopWhileWaiting:
    """Ranks look for the stop file; while Ray waits for machines there are none. Raises PreemptedError then."""

    def __init__(self, run_uri: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._run_uri, self._clock = run_uri, clock
        self._since: float | None = None

    def __call__(self) -> None:
        try:
            waits = storage.exists(stop_uri(self._run_uri)) and not self._is_running()
        except Exception:  # who cannot be asked asks for nothing
            waits = False
        if not waits:
            self._since = None
            return
        self._since = self._clock() if self._since is None else self._since
        if self._clock() - self._since >= WAITING_SECONDS:
            raise PreemptedError("stopped on request while it waited for workers; the same command goes on from its "
                                 "last checkpoint")  # fmt: skip

    def _is_running(self) -> bool:
        uri = progress_uri(self._run_uri)
        return storage.exists(uri) and storage.read_json(uri)["status"] == "running"
