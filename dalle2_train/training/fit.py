"""Train a module to its last step, from wherever its run stands, and release the averaged weights."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train import storage
from dalle2_train.checkpoints.attempt import begin_attempt, check_newest
from dalle2_train.checkpoints.consolidate import consolidate
from dalle2_train.checkpoints.exchange import of_first_rank, together
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, model_uri
from dalle2_train.checkpoints.load import newest_whole
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.checkpoints.retention import Keep, finish_removals
from dalle2_train.checkpoints.save import Guard
from dalle2_train.checkpoints.shared import check_shared
from dalle2_train.errors import PreemptedError, RefusedError
from dalle2_train.training.agreed_stream import AgreedStream
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.callbacks import Pictures, Records
from dalle2_train.training.checkpointing import Checkpoints, Constant
from dalle2_train.training.finished import FitResult, finished, tell_finished
from dalle2_train.training.goodput import Goodput
from dalle2_train.training.journal import Journal
from dalle2_train.training.loop import Resume, run_steps
from dalle2_train.training.protocols import OpenStream, Recorder, Sampler
from dalle2_train.training.quarantine import Quarantine
from dalle2_train.training.rewind import RewindError, finish_rewind, left_out_steps
from dalle2_train.training.same_run import check_same_run
from dalle2_train.training.stopping import IsDrained, Stopping
from dalle2_train.training.strategy import MeshStrategy
from dalle2_train.training.watchdog import Watchdog

_ABANDONED_SECONDS = 600.0
"""A file that nobody has written to for so long was being written by a process that was killed."""


@dataclass(frozen=True)
class Setup:
    """What a training is handed beside its module."""

    open_stream: OpenStream
    run_uri: str
    manifest_base: ModelManifest
    strategy: MeshStrategy
    recorder: Recorder | None = None
    """Rank 0's."""
    sampler: Sampler | None = None
    extra_files: Mapping[str, bytes] | None = None
    """What lies beside the weights."""
    asked: float | None = None
    """When the training was asked for, in seconds since 1970; None: now."""
    is_drained: IsDrained = lambda: False
    """Is a machine of the training about to go?"""
    check_owner: Callable[[], object] = lambda: None
    """Raises TakenOverError where the run is another process's by now; rank 0 asks before it writes what counts."""


def fit(module: UnclipModule, setup: Setup) -> FitResult:
    """Train what is left of `module.training_config.num_steps`; every rank of the existing process group calls it.

    Raises PreemptedError after a stop that was asked for, with a checkpoint written; RewindError where the run is to be
    started again from an earlier checkpoint; RefusedError where the loss stays no number, or too much of the data is
    faulty; InputError where the run's folder cannot be written or holds something else; TakenOverError, which is one,
    where the run was started anew meanwhile.
    """
    run_uri, num_steps = setup.run_uri, module.training_config.num_steps
    if (done := _finished(setup, num_steps)) is not None:
        return done
    setup = _claimed(setup)
    resumed = _resumed(setup)
    module.completed_steps = start = resumed[1].step if resumed else 0
    module.left_out = of_first_rank(together(lambda: left_out_steps(run_uri)))
    journal = together(lambda: _open_journal(setup, num_steps, start))
    status = "failed"
    try:
        if start < num_steps:
            _train(module, setup, resumed, journal)
        if module.completed_steps < num_steps:
            status = "preempted"
            raise PreemptedError(f"stopped on request after step {module.completed_steps} with a checkpoint; "
                                 "the same command goes on from there")  # fmt: skip
        checkpoint = checkpoint_uri(run_uri, module.completed_steps)
        together(lambda: _release(module, setup, checkpoint))
        status = "finished"
    except RewindError:
        status = "preempted"
        raise
    except RefusedError:
        status = "refused"
        raise
    finally:
        loss = module.outcome.loss if module.outcome else None
        if journal is not None:
            journal.finish(status, module.completed_steps, loss, module.stopwatch.lap())
    return FitResult(run_uri, module.completed_steps, loss, start, model_uri(run_uri), checkpoint)


def _finished(setup: Setup, num_steps: int) -> FitResult | None:
    """As rank 0 sees it: a folder that machines share may show the release to some of them later."""
    is_first = dist.get_rank() == 0
    done = of_first_rank(together(lambda: finished(setup.run_uri, num_steps) if is_first else None))
    if done is not None and is_first:
        tell_finished(done, num_steps, setup.recorder)
    return done


def _claimed(setup: Setup) -> Setup:
    """From here on this start of the run is the one that commits."""
    run_uri = setup.run_uri
    check_shared(run_uri)
    attempt = of_first_rank(together(lambda: begin_attempt(run_uri) if dist.get_rank() == 0 else ""))

    def check_owner() -> None:
        setup.check_owner()
        check_newest(run_uri, attempt)

    return replace(setup, check_owner=check_owner)


def _open_journal(setup: Setup, num_steps: int, start: int) -> Journal | None:
    if dist.get_rank() > 0:
        return None
    goodput = Goodput(setup.run_uri, start, dist.get_world_size(), setup.asked)
    return Journal(setup.run_uri, num_steps, goodput, setup.recorder, setup.check_owner)


def _release(module: UnclipModule, setup: Setup, checkpoint: str) -> None:
    if dist.get_rank() == 0:
        setup.check_owner()
        consolidate(checkpoint, model_uri(setup.run_uri), module.write_model, setup.extra_files)


def _resumed(setup: Setup) -> tuple[str, ModelManifest] | None:
    """(folder, manifest) of the checkpoint to go on from; None for a run that begins."""
    together(lambda: _tidy(setup.run_uri))
    resumed = newest_whole(setup.run_uri)
    if resumed is None and of_first_rank(together(lambda: committed_steps(setup.run_uri))):
        raise RefusedError(f"{setup.run_uri} has checkpoints, but none of them is whole; restore one, or give another "
                           "--name to begin anew")  # fmt: skip
    if resumed is not None:
        together(lambda: check_same_run(setup.run_uri, resumed[1], setup.manifest_base))
    return resumed


def _tidy(run_uri: str) -> None:
    """What an attempt that was killed left half done."""
    if dist.get_rank() == 0:
        storage.sweep(run_uri, _ABANDONED_SECONDS)
        finish_rewind(run_uri)
        finish_removals(run_uri)


def _train(
    module: UnclipModule, setup: Setup, resumed: tuple[str, ModelManifest] | None, journal: Journal | None
) -> None:
    folder, manifest = resumed if resumed else (None, None)
    quarantine = together(lambda: Quarantine(setup.run_uri, journal))
    order = manifest.order if manifest else None
    stream = together(lambda: setup.open_stream(order, quarantine.met.append))
    with contextlib.closing(stream):
        together(lambda: quarantine.begin(module.completed_steps, stream))
        callbacks = _callbacks(module, setup, quarantine, journal)
        run_steps(
            module, AgreedStream(stream, module.stopwatch), setup.strategy, [Resume(folder), *callbacks]
        )


def _callbacks(
    module: UnclipModule, setup: Setup, quarantine: Quarantine, journal: Journal | None
) -> list[pl.Callback]:
    """Stopping before checkpoints, so that the step that stops is also saved, and with it the faults up to there; the
    watchdog last, for what all others do belongs to the step."""
    config, run_uri = module.training_config, setup.run_uri
    records = together(lambda: None if journal is None else Records(journal, module.completed_steps))

    def flush() -> None:
        if records is not None and journal is not None:
            records.losses.flush()
            journal.flush()
        quarantine.flush()

    # What lies behind where the run goes on from was passed over as damaged.
    damaged = [step for step in together(lambda: committed_steps(run_uri)) if step > module.completed_steps]
    keep = Keep(config.keep_checkpoints, config.keep_best_checkpoints, frozenset(damaged))
    watchdog = Watchdog(config)
    constant = Constant(setup.manifest_base, dict(setup.extra_files or {}), keep, Guard(setup.check_owner, flush),
                        watchdog.be_patient)  # fmt: skip
    checkpoints = Checkpoints(run_uri, constant, journal)
    callbacks: list[pl.Callback] = [] if records is None else [records]
    if setup.sampler is not None:
        callbacks.append(Pictures(run_uri, setup.sampler, journal))
    stopping = Stopping(run_uri, checkpoints.settle, setup.is_drained, setup.check_owner)
    return [*callbacks, stopping, quarantine, checkpoints, watchdog]
