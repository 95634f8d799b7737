"""Start a training or go on with it, in this process or on Ray's workers."""

from dataclasses import replace

from dalle2_train import storage
from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.launch.begun import check_begun
from dalle2_train.launch.checks import check
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.training.fit import FitResult, finished


def train(job: TrainJob, workers: int = 0) -> FitResult:
    """Train `job` to its last step on `workers` Ray workers, or with 0 in this process, which then needs no Ray.

    A run of that name goes on from its newest whole checkpoint; a finished one returns at once. Raises InputError
    for what cannot work before anything starts, PreemptedError after a stop on request, RefusedError where the
    loss stays no number.
    """
    job = job.absolute()
    if (done := finished(job.run_uri, job.recipe.training.num_steps)) is not None:
        check_begun(job, read_manifest(done.model))
        return done
    check(job, workers)
    if job.tracking is not None:
        # mlflow takes seconds to import and is wanted only where something is tracked.
        from dalle2_train.tracking.uri import absolute_tracking_uri

        job = replace(job, tracking=absolute_tracking_uri(job.tracking))
    storage.check_writable(job.run_uri)
    storage.remove(stop_uri(job.run_uri))
    if workers > 0:
        # Ray is imported where it is wanted only.
        from dalle2_train.launch.ray_trainer import train_on_ray

        return train_on_ray(job, workers)
    from dalle2_train.launch.worker import run

    with one_rank_strategy(job.recipe.parallel) as strategy:
        return run(job, strategy)
