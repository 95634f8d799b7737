"""Train a module to its last step, from wherever its run stands, and release the averaged weights."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.consolidate import consolidate
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, model_uri, progress_uri
from dalle2_train.checkpoints.load import load_into, newest_whole
from dalle2_train.checkpoints.manifest import ModelManifest, has_manifest, read_manifest
from dalle2_train.checkpoints.state import restore_optimizer, state_of
from dalle2_train.errors import InputError, PreemptedError, RefusedError, with_article
from dalle2_train.training.agreed_stream import AgreedStream, together
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.callbacks import Checkpoints, Pictures, Records
from dalle2_train.training.protocols import OpenStream, Recorder, Sampler
from dalle2_train.training.quarantine import Quarantine
from dalle2_train.training.records import Progress, report_once
from dalle2_train.training.stopping import Stopping
from dalle2_train.training.strategy import MeshStrategy


@dataclass(frozen=True)
class FitResult:
    """How a run ended."""

    run: str
    step: int
    loss: float | None
    """Of the last step; None where it is not known any more."""
    resumed_from: int
    """Updates that an earlier attempt had done."""
    model: str
    """The folder of the released weights."""
    checkpoint: str | None


def fit(
    module: UnclipModule,
    open_stream: OpenStream,
    *,
    run_uri: str,
    manifest_base: ModelManifest,
    strategy: MeshStrategy,
    recorder: Recorder | None = None,
    sampler: Sampler | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> FitResult:
    """Train what is left of `module.training_config.num_steps`; every rank of the existing process group calls it.

    The arguments are what the composition root chooses: eight small things rather than one bag of them.
    Raises PreemptedError after a stop that was asked for, with a checkpoint written; RefusedError where the loss is
    no number, or too much of the data is faulty; InputError where the run's folder cannot be written or holds
    something else.
    """
    if (done := finished(run_uri, module.training_config.num_steps)) is not None:
        return done
    if dist.get_rank() == 0:
        storage.check_writable(run_uri)
    dist.barrier()
    resumed = newest_whole(run_uri)
    if resumed is None and committed_steps(run_uri):
        raise RefusedError(f"{run_uri} has checkpoints, but none of them is whole; restore one, or give another "
                           "--name to begin anew")  # fmt: skip
    if resumed is not None:
        _check_same_run(run_uri, resumed[1], manifest_base)
    module.completed_steps = start = resumed[1].step if resumed else 0
    progress = Progress(run_uri, module.training_config.num_steps)
    checkpoints = Checkpoints(run_uri, manifest_base, dict(extra_files or {}), lambda: None)
    status, outcome = "failed", None
    try:
        if start < module.training_config.num_steps:
            quarantine = Quarantine(run_uri, recorder)
            order = resumed[1].order if resumed else None
            stream = together(lambda: open_stream(order, quarantine.met.append))
            with contextlib.closing(stream):
                quarantine.begin(start, stream)
                callbacks = _callbacks(run_uri, start, progress, recorder, sampler, quarantine, checkpoints)
                resume = _Resume(resumed[0] if resumed else None)
                _run_lightning(module, AgreedStream(stream), strategy, [resume, *callbacks])
        outcome = module.outcome
        if module.completed_steps < module.training_config.num_steps:
            status = "preempted"
            raise PreemptedError(f"stopped on request after step {module.completed_steps} with a checkpoint; "
                                 "the same command goes on from there")  # fmt: skip
        checkpoint = checkpoint_uri(run_uri, module.completed_steps)
        if dist.get_rank() == 0:
            consolidate(checkpoint, model_uri(run_uri), module.write_model, extra_files)
        dist.barrier()
        status = "finished"
    except RefusedError:
        status = "refused"
        raise
    finally:
        _finish(status, module, progress, recorder)
    return FitResult(
        run_uri,
        module.completed_steps,
        outcome.loss if outcome else None,
        start,
        model_uri(run_uri),
        checkpoint,
    )


def finished(run_uri: str, num_steps: int) -> FitResult | None:
    """The result of a run that has nothing left to do, or None."""
    released = model_uri(run_uri)
    if not has_manifest(released):
        return None
    step = read_manifest(released).step
    if step < num_steps:
        return None
    loss = None
    if storage.exists(progress_uri(run_uri)):
        loss = storage.read_json(progress_uri(run_uri)).get("loss")
    steps = committed_steps(run_uri)
    return FitResult(
        run_uri, step, loss, step, released, checkpoint_uri(run_uri, steps[-1]) if steps else None
    )


class _Resume(pl.Callback):
    """Loads the checkpoint once Lightning has sharded the network and made the optimizer."""

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.checkpoint is None:
            return
        optimizer = pl_module.optimizers(use_pl_optimizer=False)
        state = state_of(pl_module.network, pl_module.ema.averages, optimizer)
        load_into(self.checkpoint, state)
        restore_optimizer(pl_module.network, optimizer, state)
        if dist.get_rank() == 0:
            print(f"going on from {self.checkpoint}", file=sys.stderr)


def _callbacks(
    run_uri: str,
    start: int,
    progress: Progress,
    recorder: Recorder | None,
    sampler: Sampler | None,
    quarantine: Quarantine,
    checkpoints: Checkpoints,
) -> list[pl.Callback]:
    """Stopping before checkpoints, so that the step that stops is also saved, and with it the faults up to there."""
    callbacks: list[pl.Callback] = []
    if dist.get_rank() == 0:
        records = Records(run_uri, recorder, progress, start)
        checkpoints.before_save = lambda: (records.losses.flush(), quarantine.flush())
        callbacks.append(records)
    if sampler is not None:
        callbacks.append(Pictures(run_uri, sampler, recorder))
    return [*callbacks, Stopping(run_uri), quarantine, checkpoints]


def _run_lightning(
    module: UnclipModule, stream: AgreedStream, strategy: MeshStrategy, callbacks: list[pl.Callback]
) -> None:
    """Lightning turns the crank; logging, checkpoints, progress and the counting of steps are ours."""
    left = module.training_config.num_steps - module.completed_steps
    with _quiet():
        trainer = pl.Trainer(
            accelerator="cpu" if strategy.root_device.type == "cpu" else "cuda",
            devices=1,
            strategy=strategy,
            max_epochs=1,
            limit_train_batches=left,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=callbacks,
        )
        # Lightning broadcasts before each step whether a signal came; ours travels in the step's own all-reduce.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        try:
            trainer.fit(module, train_dataloaders=stream)
        except SystemExit as exit_:
            raise KeyboardInterrupt from exit_  # what Lightning makes of a second Ctrl-C


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\b.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _check_same_run(run_uri: str, found: ModelManifest, wanted: ModelManifest) -> None:
    """A name belongs to one run: going on with another model, or on other data, would be neither."""
    for what in ("kind", "config"):
        if _differ(getattr(found, what), getattr(wanted, what)):
            raise InputError(f"{run_uri} already holds {with_article(found.kind)} with another {what}; give another "
                             "--name, or the recipe that it was started with")  # fmt: skip
    if found.data and wanted.data and found.data.digest != wanted.data.digest:
        raise InputError(f"{run_uri} was trained on other shards ({found.data.uri}); give another --name, and "
                         "--init-from to start from its weights")  # fmt: skip
    if wanted.init_from is not None and found.init_from != wanted.init_from:
        raise InputError(f"{run_uri} began with other weights than --init-from's; give another --name, or leave "
                         "--init-from out to go on")  # fmt: skip
    if found.clip and wanted.clip and found.clip.fingerprint != wanted.clip.fingerprint:
        raise InputError(f"{run_uri} was trained with another CLIP ({found.clip.uri}, {found.clip.fingerprint}); "
                         "give another --name, or that CLIP")  # fmt: skip


def _differ(found: Any, wanted: Any) -> bool:
    """Of mappings only the keys of both count: any other came or went with a version of this program, and whoever makes
    the recipe knows its default."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return any(_differ(found[key], wanted[key]) for key in found.keys() & wanted.keys())
    return found != wanted


def _finish(status: str, module: UnclipModule, progress: Progress, recorder: Recorder | None) -> None:
    """Say how it ended, where that can still be said."""
    if dist.get_rank() != 0:
        return
    complained: set[str] = set()
    try:
        progress.write(status, module.completed_steps, module.outcome.loss if module.outcome else None)
    except Exception as error:
        report_once(complained, "writing progress.json", error)
    try:
        if recorder is not None:
            recorder.finish(status)
    except Exception as error:
        report_once(complained, "finishing the record", error)
