"""`TorchTrainer.fit` beside the main thread."""

import threading
from concurrent.futures import Future

import ray.train
from ray.train.torch import TorchTrainer


def fit_trainer(trainer: TorchTrainer) -> ray.train.Result:
    """`trainer.fit()` in a thread: in the main one Ray would take Ctrl-C for itself, and keep it ever after."""
    future: Future[ray.train.Result] = Future()

    def work() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ray-train", daemon=True).start()
    return future.result()
