"""A training on Ray Train's workers: Ray starts, watches and restarts them; what is committed is ours to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
from ray.train import TrainingFailedError
from ray.train.torch import TorchTrainer, get_device

from dalle2_train import storage
from dalle2_train.checkpoints.layout import committed_steps, stop_uri
from dalle2_train.errors import InputError, PreemptedError, RefusedError
from dalle2_train.launch.drain import DrainWatch
from dalle2_train.launch.gauges import Gauges
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.ray_configs import patience, run_config, scaling_config, torch_config, uses_gpu
from dalle2_train.launch.ray_connection import connect
from dalle2_train.launch.ray_fit import StartsTold, StopWhileWaiting, fit_trainer, say
from dalle2_train.launch.ray_room import check_room
from dalle2_train.launch.worker import Host, run
from dalle2_train.launch.worker_count import WorkerCount
from dalle2_train.training.finished import FitResult
from dalle2_train.training.memory import MemoryRefusal
from dalle2_train.training.rewind import RewindError
from dalle2_train.training.signals import asking_on_signals
from dalle2_train.training.strategy import MeshStrategy

Run = Callable[..., FitResult]


@dataclass(frozen=True)
class Ended:
    """An attempt that ended by design rather than at the last step: a restart by Ray would only meet it again."""

    error: type[Exception] | None
    """What ends the training; None: it is to go on."""
    message: str


def train_on_ray(
    job: TrainJob, workers: WorkerCount, holder: str = "", asked: float | None = None, work: Run = run
) -> FitResult:
    """Train on Ray workers; a worker's death restarts all from the last committed checkpoint.

    Uses the Ray that this process is connected to, or RAY_ADDRESS, or a local one of its own. holder, asked: as of
    `Host`. work: what each rank does. Raises what that raises by design; RefusedError where workers failed oftener than
    `training.max_failures` without a new checkpoint.
    """
    is_ours = connect(workers.most)
    job = job.absolute()
    try:
        use_gpu = uses_gpu(job.recipe)  # once: machines that come back later bring their GPUs with them
        check_room(job.recipe, workers, use_gpu, is_ours)
        # Through storage, which the workers of another machine see too.
        config = {"job": job, "work": work, "holder": holder, "asked": asked}
        starts_told = StartsTold(job.run_uri)
        with asking_on_signals(lambda: storage.publish_bytes(stop_uri(job.run_uri), b"")):
            while True:
                outcome = _attempt(job, workers, use_gpu, config, starts_told)
                if not isinstance(outcome, Ended):
                    return outcome
                if outcome.error is not None and not _goes_on(job, outcome.error):
                    raise outcome.error(outcome.message)
                say(f"{outcome.message}; starting again")
    finally:
        if is_ours:  # nothing after it needs its processes or its memory
            ray.shutdown()


def _attempt(
    job: TrainJob,
    workers: WorkerCount,
    use_gpu: bool,
    config: dict[str, Any],
    starts_told: StartsTold,
) -> FitResult | Ended:
    done = _newest_step(job)
    trainer = TorchTrainer(
        _rank,
        train_loop_config=config,
        torch_config=torch_config(job.recipe, use_gpu),
        scaling_config=scaling_config(job.recipe, workers, use_gpu),
        run_config=run_config(job),
    )
    try:
        with patience(job.recipe):
            outcome = fit_trainer(trainer, (StopWhileWaiting(job.run_uri), starts_told)).return_value
    except TrainingFailedError as error:
        failures = list(getattr(error, "worker_failures", {}).values()) or [error]
        refusal = next((one for one in failures if isinstance(one, MemoryRefusal)), None)
        if refusal is not None:  # what one rank found out alone, while the others were waiting for it
            raise refusal from error
        if _newest_step(job) > done:
            return Ended(None, "workers failed again and again, but the run got further in between")
        raise RefusedError(_told(job, done, failures[0])) from error
    assert isinstance(outcome, FitResult | Ended)
    return outcome


def _told(job: TrainJob, done: int, failure: Exception) -> str:
    lines = str(failure).strip().splitlines() or [""]
    return (
        f"{job.run_uri}: workers failed more than training.max_failures={job.recipe.training.max_failures} times "
        f"without a checkpoint after step {max(done, 0)}; at last {type(failure).__name__}: {lines[-1]}. Look into "
        "that worker's log, mend what ended it, and give the same command"
    )


def _goes_on(job: TrainJob, error: type[Exception]) -> bool:
    """Was it rewound, or did a machine go, so that the rest is for other workers to do?"""
    if error is RewindError:
        return True
    return error is PreemptedError and not storage.exists(stop_uri(job.run_uri))


def _newest_step(job: TrainJob) -> int:
    """Of the checkpoints that count; -1 where there is none."""
    return max(committed_steps(job.run_uri), default=-1)


def _rank(config: dict[str, Any]) -> FitResult | Ended:
    """What a worker does."""
    job, context = config["job"], ray.train.get_context()
    strategy = MeshStrategy(
        job.recipe.parallel,
        get_device(),
        local_rank=context.get_local_rank(),
        local_world_size=context.get_local_world_size(),
        node_rank=context.get_node_rank(),
    )
    try:
        gauges = Gauges(job.name, job.recipe.training.num_steps) if context.get_world_rank() == 0 else None
        # Returned, and not reported as it goes: Ray's report waits for all ranks, of which one may be gone. Where the
        # checkpoints are it is never told: one truth about what is committed is enough.
        return config["work"](job, strategy, Host(config["holder"], config["asked"], DrainWatch(), gauges))
    except MemoryRefusal:
        raise  # the others are in the midst of the step, and have to be ended
    except (InputError, RefusedError, PreemptedError, RewindError) as error:
        return Ended(type(error), str(error))
