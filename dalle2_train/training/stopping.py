"""When a training ends before its last step: told to, or no number for too long. All ranks end at the same step."""

import threading
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.training.callbacks import outcome_of
from dalle2_train.training.rewind import rewind_or_refuse
from dalle2_train.training.signals import ask_on_signals

IsDrained = Callable[[], bool]


class Stopping(pl.Callback):
    """Stops all ranks together: when told to (a signal, a stop file, a drained machine), or when the loss has been no
    number for long."""

    def __init__(
        self,
        run_uri: str,
        settle: Callable[[], object],
        is_drained: IsDrained,
        check_owner: Callable[[], object] = lambda: None,
    ) -> None:
        """settle: waits for a checkpoint that is being written. is_drained: is a machine of this training about to
        go? check_owner: as of `fit.Setup`."""
        self.run_uri, self._settle, self._check_owner = run_uri, settle, check_owner
        self.num_nonfinite = 0
        self._is_drained = is_drained
        self._signalled = False
        self._asked = threading.Event()
        self._ended = threading.Event()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Only now: Lightning has put its own handlers there, and puts back what it found when it is done.
        ask_on_signals(self._on_signal)
        if dist.get_rank() == 0:
            self._look_once()
            threading.Thread(target=self._look, name="stop-file", daemon=True).start()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.stop_requested = self._signalled or self._asked.is_set() or self._is_drained()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outcome, config = outcome_of(pl_module), pl_module.training_config
        is_bad = outcome.skipped and not outcome.left_out
        self.num_nonfinite = self.num_nonfinite + 1 if is_bad else 0
        if self.num_nonfinite >= config.max_nonfinite_steps:
            self._settle()  # or it would be committed into the history that is given up
            rewind_or_refuse(self.run_uri, config, outcome.step, self.num_nonfinite, self._check_owner)
        if outcome.stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._ended.set()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._ended.set()

    def _on_signal(self) -> None:
        self._signalled = True

    def _look(self) -> None:
        """For the stop file, seldom, in a thread: a storage that does not answer holds up no step."""
        seconds = 1.0 if storage.local_path(self.run_uri) is not None else 10.0
        while not self._ended.wait(seconds):
            self._look_once()

    def _look_once(self) -> None:
        try:
            if storage.exists(stop_uri(self.run_uri)):
                self._asked.set()
        except Exception:  # who cannot be asked asks for nothing
            return
