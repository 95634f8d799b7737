"""What is kept of a step: records and pictures. `checkpointing` and `stopping` are callbacks too."""

import io
import sys
from contextlib import suppress
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch

from dalle2_train import storage
from dalle2_train.checkpoints.exchange import gather, separate_group
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.journal import Journal
from dalle2_train.training.outcome import StepOutcome
from dalle2_train.training.protocols import Sampler
from dalle2_train.training.records import LossRecord, report_once
from dalle2_train.training.spikes import SpikeDetector

PATIENCE_SECONDS = 600.0
"""So long a rank waits for the others to have drawn, or to have failed."""


class Records(pl.Callback):
    """On rank 0: a line per step, progress, where the time went, and metrics to the recorder.

    The losses are part of the run, and what fails them ends it; progress and the recorder stop nothing.
    """

    def __init__(self, journal: Journal, completed_steps: int) -> None:
        self.losses = LossRecord(journal.run_uri, completed_steps)
        self._journal = journal
        self._spikes = SpikeDetector()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outcome = outcome_of(pl_module)
        self.losses.add({"step": outcome.step, "loss": outcome.loss, "gradient_norm": outcome.gradient_norm,
                         "learning_rate": outcome.learning_rate, "skipped": outcome.skipped})  # fmt: skip
        self._journal.goodput.add(outcome.step, pl_module.lap)
        self._journal.step(outcome.step, outcome.loss)
        values = {"skipped_steps": 1.0} if outcome.skipped else {}
        if self._is_spike(outcome):
            values["loss_spikes"] = 1.0
        config = pl_module.training_config
        if outcome.step % config.log_every_steps == 0 or outcome.step == config.num_steps:
            values |= self._described(outcome, config.global_batch_size)
        if values:
            self._journal.metrics(outcome.step, values)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.losses.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        with suppress(OSError):  # what ended the training is told
            (self.losses.close if self._journal.is_ours() else self.losses.abandon)()

    def _is_spike(self, outcome: StepOutcome) -> bool:
        if outcome.skipped or not self._spikes.add(outcome.loss):
            return False
        print(
            f"step {outcome.step}: the loss of {outcome.loss:.4g} stands out of those before", file=sys.stderr
        )
        return True

    def _described(self, outcome: StepOutcome, global_batch_size: int) -> dict[str, float]:
        waited = outcome.data_seconds
        values = {
            "loss": outcome.loss,
            "gradient_norm": outcome.gradient_norm,
            "learning_rate": outcome.learning_rate,
            "goodput": self._journal.goodput.account.goodput,
            "data_wait_seconds": sum(waited) / len(waited),
            "data_wait_max_seconds": max(waited),
            "checkpoint_stall_seconds": self._journal.goodput.last_stall,
        }
        if (typical := median(outcome.probe_seconds)) > 0:
            values["straggler_ratio"] = max(outcome.probe_seconds) / typical
        if seconds := self._journal.progress.seconds_per_step:
            values |= {"seconds_per_step": seconds, "samples_per_second": global_batch_size / seconds}
        return values | outcome.metrics


class Pictures(pl.Callback):
    """Now and then every rank draws with the averaged weights; rank 0 keeps the picture. Every rank makes one."""

    def __init__(self, run_uri: str, sampler: Sampler, journal: Journal | None) -> None:
        self.run_uri, self.sampler, self._journal = run_uri, sampler, journal
        self._complained: set[str] = set()
        # Of its own: on the training's, who has failed would meet the others in the midst of their drawing.
        self._group = separate_group(PATIENCE_SECONDS)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every, step = pl_module.training_config.sample_every_steps, pl_module.completed_steps
        if every > 0 and step % every == 0:
            with pl_module.stopwatch.doing("pictures"):
                self.draw(pl_module, step)

    def draw(self, module: UnclipModule, step: int) -> None:
        """Every rank calls it; what fails there is told once, and stops nothing. Raises RuntimeError where a rank
        failed while the others wait for it, as they would for ever."""
        image, error = self._drawn(module)
        try:
            failed = any(gather(error is not None, self._group))
        except RuntimeError as silence:
            raise RuntimeError("a rank failed to draw samples while others wait for it, or is "
                               f"{PATIENCE_SECONDS:.0f} s behind; training.sample_every_steps=0 goes on without: "
                               f"{error or silence}") from error  # fmt: skip
        if error is not None:
            report_once(self._complained, "drawing samples", error)
        if self._journal is not None and not failed:
            self._keep(self._journal, step, image)

    def _drawn(self, module: UnclipModule) -> tuple[Any, Exception | None]:
        assert module.ema is not None
        try:
            with module.ema.swap(), torch.no_grad(), module.precision_context():
                module.network.eval()
                return self.sampler(module.network), None
        except Exception as error:
            return None, error
        finally:
            module.network.train()

    def _keep(self, journal: Journal, step: int, image: Any) -> None:
        try:
            storage.publish_bytes(storage.join(self.run_uri, "samples", f"step-{step:08d}.png"), _png(image))
            journal.image("samples", step, image)
        except Exception as error:
            report_once(self._complained, "keeping samples", error)


def outcome_of(module: UnclipModule) -> StepOutcome:
    """What the step that has just ended came to."""
    assert module.outcome is not None
    return module.outcome


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
