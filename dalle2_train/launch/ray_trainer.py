"""A training on Ray Train's workers: Ray starts, watches and restarts them; what is committed is ours to say."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import fsspec
import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from dalle2_train import storage
from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.errors import InputError, PreemptedError, RefusedError
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.ray_connection import connect
from dalle2_train.training.fit import FitResult
from dalle2_train.training.signals import asking_on_signals
from dalle2_train.training.strategy import MeshStrategy

Run = Callable[[Any, MeshStrategy], FitResult]


@dataclass(frozen=True)
class Ended:
    """A training that ended by design rather than at its last step: a restart would only meet it again."""

    error: type[Exception]
    message: str


def train_on_ray(job: TrainJob, workers: int, run: Run | None = None) -> FitResult:
    """Train on `workers` Ray workers; a worker's death restarts all from the last committed checkpoint.

    Uses the Ray that this process is connected to, or RAY_ADDRESS, or a local one of its own.
    `run` is what each rank does, by default `launch.worker.run`. Raises what it raises by design.
    """
    is_ours = connect(workers)
    if run is None:
        from dalle2_train.launch.worker import run
    job = job.absolute()
    # The cluster is asked, not this process: a head node often has no GPU of its own.
    use_gpu = ray.cluster_resources().get("GPU", 0) > 0
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"job": job, "run": run},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"{job.name}-attempt-{_next_attempt(job.run_uri)}",
            failure_config=FailureConfig(max_failures=job.recipe.training.max_failures),
            **_ray_storage(job.run_uri),
        ),
    )
    try:
        # Through storage, which the workers of another machine see too.
        with asking_on_signals(lambda: storage.publish_bytes(stop_uri(job.run_uri), b"")):
            result = _fit(trainer)
    finally:
        if is_ours:  # nothing after it needs its processes or its memory
            ray.shutdown()
    if result.error is not None:
        raise result.error
    outcome = result.return_value
    if isinstance(outcome, Ended):
        raise outcome.error(outcome.message)
    assert isinstance(outcome, FitResult)
    return outcome


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
        result = config["run"](job, strategy)
    except (InputError, RefusedError, PreemptedError) as error:
        return Ended(type(error), str(error))
    # Ray is told how it went, never where the checkpoints are: one truth about what is committed is enough.
    ray.train.report(
        {"step": int(result.step), "loss": float("nan") if result.loss is None else float(result.loss)}
    )
    return result


def _next_attempt(run_uri: str) -> int:
    """Ray keeps state under a run's name; a name of its own for every start leaves it nothing to trip over."""
    uri = storage.join(run_uri, "ray", "attempts.json")
    number = storage.read_json(uri)["attempts"] + 1 if storage.exists(uri) else 1
    storage.publish_json(uri, {"attempts": number})
    return number


def _ray_storage(run_uri: str) -> dict[str, Any]:
    """Where Ray keeps its own small files: beside ours, through our file system where it is a remote one."""
    folder = storage.join(run_uri, "ray")
    if storage.local_path(folder) is not None:
        return {"storage_path": folder}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = fsspec.core.url_to_fs(folder)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}


def _fit(trainer: TorchTrainer) -> ray.train.Result:
    """`trainer.fit()` in a thread: in the main one Ray would take Ctrl-C for itself, and keep it ever after."""
    future: Future[ray.train.Result] = Future()

    def work() -> None:
        try:
            future.set_result(trainer.fit())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="ray-train", daemon=True).start()
    return future.result()
