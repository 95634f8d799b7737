"""Start a training or go on with it, in this process or on Ray's workers."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from dalle2_train import storage
from dalle2_train.checkpoints.layout import progress_uri, stop_uri
from dalle2_train.checkpoints.lease import Lease
from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.launch.begun import check_begun
from dalle2_train.launch.checks import check
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.launch.recorders import send_the_rest
from dalle2_train.launch.worker_count import WorkerCount
from dalle2_train.training.finished import FitResult, finished, tell_finished
from dalle2_train.training.records import Progress
from dalle2_train.training.rewind import RewindError


def train(job: TrainJob, workers: int | str | WorkerCount = 0) -> FitResult:
    """Train `job` to its last step on `workers` Ray workers, or with 0 in this process, which then needs no Ray.

    workers: N, or "MIN:MAX" for as many as there are machines for at a time. A run of that name goes on from its newest
    whole checkpoint; a finished one returns at once. Raises InputError for what cannot work before anything starts,
    another training of the name among it; PreemptedError after a stop on request; RefusedError where the loss stays no
    number, no checkpoint is whole, too much of the data is faulty, or a step does not fit into memory.
    """
    asked = time.time()
    job = job.absolute()
    if (done := finished(job.run_uri, job.recipe.training.num_steps)) is not None:
        manifest = read_manifest(done.model)
        check_begun(job, manifest)
        tell_finished(done, job.recipe.training.num_steps)
        send_the_rest(job, manifest)
        return done
    count = WorkerCount.of(workers)
    check(job, count)
    job = _absolute_tracking(job)
    storage.check_writable(job.run_uri)
    was_stopped = storage.exists(stop_uri(job.run_uri))
    with Lease(job.run_uri) as lease:
        if was_stopped:  # the one before; whoever asks from here on asks us
            storage.remove(stop_uri(job.run_uri))
        with _starting(job):
            if count.most > 0:
                # Ray is imported where it is wanted only.
                from dalle2_train.launch.ray_trainer import train_on_ray

                return train_on_ray(job, count, lease.holder.id, asked)
            return _train_here(job, lease.holder.id, asked)


@contextmanager
def _starting(job: TrainJob) -> Iterator[None]:
    """Until its ranks can say how far they are, which takes Ray minutes, the run is told to be starting."""
    uri = progress_uri(job.run_uri)
    before = storage.read_json(uri) if storage.exists(uri) else {"step": 0, "loss": None}
    progress = Progress(job.run_uri, job.recipe.training.num_steps, storage.publish_json)
    progress.write("starting", before["step"], before["loss"])
    try:
        yield
    except Exception:
        with suppress(Exception):  # what ended it is what is told
            if storage.read_json(uri)["status"] == "starting":
                progress.write("failed", before["step"], before["loss"])
        raise


def _absolute_tracking(job: TrainJob) -> TrainJob:
    """Workers have other working directories."""
    if job.tracking is None:
        return job
    # mlflow takes seconds to import and is wanted only where something is tracked.
    from dalle2_train.tracking.uri import absolute_tracking_uri

    return replace(job, tracking=absolute_tracking_uri(job.tracking))


def _train_here(job: TrainJob, holder: str, asked: float) -> FitResult:
    from dalle2_train.launch.worker import Host, run

    while True:
        try:
            with one_rank_strategy(job.recipe.parallel) as strategy:
                return run(job, strategy, Host(holder, asked))
        except RewindError as error:
            print(error, file=sys.stderr)
