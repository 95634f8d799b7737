"""A training that takes a given CPU time, as stages of a workflow."""

from dataclasses import dataclass, replace

from dalle2_train import storage
from dalle2_train.data.stream.summary import summarize
from dalle2_train.errors import InputError
from dalle2_train.launch import TrainJob, train
from dalle2_train.planning.parameters import count_parameters
from dalle2_train.workflow.budget import Calibration, CpuMeter, calibrate
from dalle2_train.workflow.questions import data_digest
from dalle2_train.workflow.stages import Workflow


@dataclass(frozen=True)
class Trained:
    """A model and what it took."""

    model: str
    num_steps: int
    num_parameters: int
    cpu_seconds: float
    """Really used over all attempts, starting and saving included."""


def train_within(flow: Workflow, job: TrainJob, cpu_seconds: float) -> Trained:
    """Train `job` in this process for about `cpu_seconds`, whatever its recipe says of the number of steps.

    Two stages, NAME.steps and NAME: short runs tell how many steps fit, so that the learning rate's schedule ends with
    the budget. Interrupted, it goes on from its newest checkpoint.
    Errors: InputError for a recipe whose data other processes decode, whose CPU time is not seen here.
    """
    workers = job.recipe.data.num_workers
    if workers > 0:
        raise InputError(
            f"data.num_workers={workers}: the CPU time of loader processes is not counted; set 0 for {job.name}"
        )
    asked = {
        "recipe": _of_steps(job, 1).recipe,
        "data": data_digest(job.data),
        "clip": job.clip,
        "embeddings": job.embeddings,
        "cpu_seconds": cpu_seconds,
    }
    steps = flow.stage(
        f"{job.name}.steps", Calibration, lambda _: _calibrate(job, cpu_seconds), question=asked
    )
    fitted = _of_steps(job, steps.num_steps, num_checkpoints=10)
    return flow.stage(
        job.name, Trained, lambda _: _train(flow, fitted), question=asked, run_uri=fitted.run_uri
    )


def _train(flow: Workflow, job: TrainJob) -> Trained:
    with CpuMeter(storage.join(flow.folder, "cpu", f"{job.name}.json")) as meter:
        done = train(job)
    num_parameters = count_parameters(job.recipe.model).total
    return Trained(done.model, done.step, num_parameters, meter.seconds)


def _calibrate(job: TrainJob, cpu_seconds: float) -> Calibration:
    """By runs that leave nothing behind, and save at their end alone, so that a step's price is that of a step."""
    with storage.local_staging() as scratch:

        def attempt(number: int, num_steps: int) -> None:
            train(replace(_of_steps(job, num_steps), storage=str(scratch), name=str(number)))

        return calibrate(cpu_seconds, attempt, epoch_steps(job))


def epoch_steps(job: TrainJob) -> int:
    """Steps in which every sample of the job's split is met once; fewer meet those that filters leave."""
    recipe = job.recipe
    samples = summarize(job.data).splits.get(recipe.data.split, 0)
    return -(-samples // recipe.training.global_batch_size)


def _of_steps(job: TrainJob, num_steps: int, num_checkpoints: int = 1) -> TrainJob:
    """`job` with its schedule ending after `num_steps`."""
    every = -(-num_steps // num_checkpoints)
    training = replace(job.recipe.training, num_steps=num_steps, checkpoint_every_steps=every)
    return replace(job, recipe=replace(job.recipe, training=training))
