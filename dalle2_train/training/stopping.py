"""When a training ends before its last step: told to, or no number for too long. All ranks end at the same step."""

import time
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.errors import RefusedError
from dalle2_train.training.callbacks import outcome_of
from dalle2_train.training.signals import ask_on_signals


class Stopping(pl.Callback):
    """Stops all ranks together: when told to (a signal, a stop file), or when the loss has been no number for long."""

    def __init__(self, run_uri: str) -> None:
        self.stop_uri = stop_uri(run_uri)
        self.num_nonfinite = 0
        self._signalled = False
        self._last_look = -float("inf")
        self._look_every = 1.0 if storage.local_path(run_uri) is not None else 10.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        # Only now: Lightning has put its own handlers there, and puts back what it found when it is done.
        ask_on_signals(self._on_signal)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.stop_requested = self._signalled or self._is_asked()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outcome, limit = outcome_of(pl_module), pl_module.training_config.max_nonfinite_steps
        self.num_nonfinite = self.num_nonfinite + 1 if outcome.skipped else 0
        if self.num_nonfinite >= limit:
            raise RefusedError(
                f"the loss or gradient was not finite {limit} steps in a row, up to step {outcome.step}; these updates "
                "were left out. Lower optimizer.learning_rate, or look for broken samples with `shards check`"
            )
        if outcome.stop:
            trainer.should_stop = True

    def _on_signal(self) -> None:
        self._signalled = True

    def _is_asked(self) -> bool:
        """Rank 0 looks for the stop file, seldom; a storage that does not answer asks for nothing."""
        now = time.monotonic()
        if dist.get_rank() != 0 or now - self._last_look < self._look_every:
            return False
        self._last_look = now
        try:
            return storage.exists(self.stop_uri)
        except Exception:
            return False
