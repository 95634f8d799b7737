"""What is kept of a step: records, pictures, checkpoints. Each is one callback; `stopping` is another."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.checkpoints.save import save
from dalle2_train.checkpoints.state import state_of
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.outcome import StepOutcome
from dalle2_train.training.protocols import Recorder, Sampler
from dalle2_train.training.records import LossRecord, Progress, report_once


class Records(pl.Callback):
    """On rank 0: a line per step, progress, and metrics to the recorder.

    The losses are part of the run, and what fails them ends it; progress and the recorder stop nothing.
    """

    def __init__(
        self, run_uri: str, recorder: Recorder | None, progress: Progress, completed_steps: int
    ) -> None:
        self.recorder, self.progress = recorder, progress
        self.losses = LossRecord(run_uri, completed_steps)
        self._complained: set[str] = set()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        outcome = outcome_of(pl_module)
        self.losses.add({"step": outcome.step, "loss": outcome.loss, "gradient_norm": outcome.gradient_norm,
                         "learning_rate": outcome.learning_rate, "skipped": outcome.skipped})  # fmt: skip
        try:
            self.progress.update(outcome.step, outcome.loss)
        except Exception as error:
            report_once(self._complained, "writing progress.json", error)
        if (
            outcome.step % pl_module.training_config.log_every_steps == 0
            or outcome.step == self.progress.num_steps
        ):
            self._log(outcome, pl_module.training_config.global_batch_size)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.losses.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.losses.close()

    def _log(self, outcome: StepOutcome, global_batch_size: int) -> None:
        values = {
            "loss": outcome.loss,
            "gradient_norm": outcome.gradient_norm,
            "learning_rate": outcome.learning_rate,
        }
        if seconds := self.progress.seconds_per_step:
            values |= {"seconds_per_step": seconds, "samples_per_second": global_batch_size / seconds}
        values |= outcome.metrics
        try:
            if self.recorder is not None:
                self.recorder.metrics(outcome.step, values)
        except Exception as error:
            report_once(self._complained, "recording metrics", error)


class Pictures(pl.Callback):
    """Now and then every rank draws with the averaged weights; rank 0 keeps the picture."""

    def __init__(self, run_uri: str, sampler: Sampler, recorder: Recorder | None) -> None:
        self.run_uri, self.sampler, self.recorder = run_uri, sampler, recorder
        self._complained: set[str] = set()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every, step = pl_module.training_config.sample_every_steps, pl_module.completed_steps
        if every > 0 and step % every == 0:
            self.draw(pl_module, step)

    def draw(self, module: UnclipModule, step: int) -> None:
        assert module.ema is not None
        try:
            with module.ema.swap(), torch.no_grad(), module.precision_context():
                module.network.eval()
                image = self.sampler(module.network)
            if dist.get_rank() == 0:
                storage.publish_bytes(
                    storage.join(self.run_uri, "samples", f"step-{step:08d}.png"), _png(image)
                )
                if self.recorder is not None:
                    self.recorder.image("samples", step, image)
        except Exception as error:
            report_once(self._complained, "drawing samples", error)
        finally:
            module.network.train()


class Checkpoints(pl.Callback):
    """Every so many steps all ranks write a checkpoint; the counter of steps is ours, not Lightning's."""

    def __init__(
        self,
        run_uri: str,
        manifest: ModelManifest,
        extra_files: dict[str, bytes],
        before_save: Callable[[], object],
    ) -> None:
        self.run_uri, self.manifest, self.extra_files, self.before_save = (
            run_uri,
            manifest,
            extra_files,
            before_save,
        )
        self.last_uri: str | None = None
        self.last_step = -1

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        config, step = pl_module.training_config, pl_module.completed_steps
        if step % config.checkpoint_every_steps == 0 or step == config.num_steps or trainer.should_stop:
            self.save(pl_module)

    def save(self, module: UnclipModule) -> None:
        assert module.ema is not None
        step, config = module.completed_steps, module.training_config
        if step == self.last_step:
            return
        self.before_save()
        optimizer = module.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        state = state_of(module.network, module.ema.averages, optimizer)
        manifest = replace(self.manifest, step=step, order=merged_order(module.order))
        self.last_uri = save(self.run_uri, state, manifest, self.extra_files, config.keep_checkpoints)
        self.last_step = step


def merged_order(order: Any) -> dict[str, Any]:
    """The order of all ranks as one JSON mapping; every rank calls it."""
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, order)
    return type(order).merge(parts).to_json()


def outcome_of(module: UnclipModule) -> StepOutcome:
    """What the step that has just ended came to."""
    assert module.outcome is not None
    return module.outcome


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
