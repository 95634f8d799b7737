"""A rank that gets no further ends itself, so that whoever started it starts all again from the last checkpoint.

A rank that waits for a frozen one finds out by the same clock: nobody has to be asked who is to blame.
"""

import faulthandler
import os
import sys
import threading
import time
from typing import Any

import pytorch_lightning as pl

from dalle2_train.errors import EXIT_PREEMPTED
from dalle2_train.training.config import TrainingConfig


class Watchdog(pl.Callback):
    """Ends this process where a step takes longer than `training.step_deadline_seconds`; the first one, which compiles,
    those that draw pictures, and waiting for checkpoints have `first_step_deadline_seconds`."""

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._due: float | None = None
        self._step, self._told = 0, ""
        self._ended = threading.Event()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._allow(pl_module.completed_steps + 1, is_long=True)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every, following = self._config.sample_every_steps, pl_module.completed_steps + 1
        self._allow(following, is_long=every > 0 and following % every == 0)

    def be_patient(self) -> None:
        """What comes until the step's end is no step: a save that is waited for."""
        self._allow(self._step, is_long=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._ended.set()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._ended.set()

    def _allow(self, step: int, is_long: bool) -> None:
        name = "first_step_deadline_seconds" if is_long else "step_deadline_seconds"
        self._step = step
        seconds: float | None = getattr(self._config, name)
        self._told = f"step {step} was not done within training.{name}={seconds}"
        self._due = None if seconds is None else time.monotonic() + seconds

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            due = self._due
            if due is not None and time.monotonic() > due:
                print(f"{self._told}; ending this process, to go on from the last checkpoint. If steps or saves "
                      "are that slow, raise it. Where it stood:",
                      file=sys.stderr, flush=True)  # fmt: skip
                faulthandler.dump_traceback(all_threads=True)
                os._exit(EXIT_PREEMPTED)
