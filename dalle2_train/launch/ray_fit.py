"""`TorchTrainer.fit` beside the main thread, which hears of a stop where no worker can."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import ray.train
from ray.train.torch import TorchTrainer

from dalle2_train import storage
from dalle2_train.checkpoints.layout import progress_uri, stop_uri
from dalle2_train.errors import PreemptedError

_LOOK_SECONDS = 5.0
WAITING_SECONDS = 30.0
"""Workers that are there have ended by then, or say that they are still at it."""


def fit_trainer(trainer: TorchTrainer, check_stop: Callable[[], object]) -> ray.train.Result:
    """`trainer.fit()` in a thread: in the main one Ray would take Ctrl-C for itself, and keep it ever after.

    check_stop: called now and then; what it raises is raised.
    """
    future: Future[ray.train.Result] = Future()

    def work() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ray-train", daemon=True).start()
    while True:
        try:
            return future.result(_LOOK_SECONDS)
        except TimeoutError:
            if future.done():  # it is Ray's own
                raise
        check_stop()


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
