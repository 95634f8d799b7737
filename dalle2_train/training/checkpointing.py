"""Every so many steps all ranks write a checkpoint, beside the training; the counter of steps is ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch

from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.checkpoints.retention import Keep
from dalle2_train.checkpoints.save import Guard, Snapshot
from dalle2_train.checkpoints.saver import Saver
from dalle2_train.checkpoints.state import state_of
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.callbacks import outcome_of
from dalle2_train.training.journal import Journal

_LAST_SECONDS = 60.0


@dataclass(frozen=True)
class Constant:
    """What stays the same from one checkpoint to the next."""

    manifest: ModelManifest
    files: Mapping[str, bytes]
    """Beside the tensors."""
    keep: Keep
    guard: Guard
    be_patient: Callable[[], object]
    """Tells the watchdog that a save is waited for, which is no step."""


class Checkpoints(pl.Callback):
    """Begins a save after every `training.checkpoint_every_steps`, at the last step, and where the training stops."""

    def __init__(self, run_uri: str, constant: Constant, journal: Journal | None) -> None:
        """journal: rank 0's."""
        self._constant, self._journal = constant, journal
        self._saver = Saver(run_uri, constant.keep, constant.guard)
        self._last_step = -1
        self._losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.failure = self._saver.failure

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        config, outcome = pl_module.training_config, outcome_of(pl_module)
        if not outcome.skipped:
            self._losses.append(outcome.loss)
        step = outcome.step
        if step % config.checkpoint_every_steps == 0 or step == config.num_steps or trainer.should_stop:
            with pl_module.stopwatch.doing("checkpoint"):
                self._begin(pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._constant.be_patient()
        self._saver.wait()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        # What ended the training is told; whether the last save failed too is not of interest any more.
        if not isinstance(exception, KeyboardInterrupt):  # a second Ctrl-C ends at once
            self._saver.settle(_LAST_SECONDS)

    def settle(self) -> None:
        """Wait for what is being written, whether it succeeds or not."""
        self._constant.be_patient()
        self._saver.settle()

    def _begin(self, module: UnclipModule) -> None:
        step = module.completed_steps
        if step == self._last_step:
            return
        self._last_step = step
        assert module.ema is not None
        optimizer = module.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        self._losses.clear()
        manifest = replace(self._constant.manifest, step=step, loss=loss)
        state = state_of(module.network, module.ema.averages, optimizer)
        if self._journal is not None:
            self._journal.goodput.mark(step)
        self._constant.be_patient()
        self._saver.begin(Snapshot(state, manifest, self._constant.files, module.order))
