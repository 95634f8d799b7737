"""What a recipe says of its workers, as Ray Train wants to hear it."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig

from dalle2_train import storage
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.worker_count import WorkerCount
from dalle2_train.recipe import Recipe

_NO_DEADLINE_SECONDS = 7 * 24 * 3600


def scaling_config(recipe: Recipe, workers: WorkerCount, use_gpu: bool) -> ScalingConfig:
    """How many workers, what each reserves, and where."""
    wanted = recipe.workers
    return ScalingConfig(
        num_workers=(workers.least, workers.most) if workers.is_elastic else workers.least,
        use_gpu=use_gpu,
        resources_per_worker=resources_of_worker(recipe, use_gpu),
        placement_strategy=wanted.placement,
        accelerator_type=wanted.accelerator_type,
        label_selector=dict(wanted.labels) or None,
        elastic_resize_monitor_interval_s=wanted.resize_seconds,
    )


def uses_gpu(recipe: Recipe) -> bool:
    """As the recipe says; else the cluster is asked, not this process: a head node often has no GPU of its own."""
    wanted = recipe.workers.num_gpus
    return wanted > 0 if wanted is not None else ray.cluster_resources().get("GPU", 0) > 0


def resources_of_worker(recipe: Recipe, use_gpu: bool) -> dict[str, float]:
    """What one reserves, by Ray's names."""
    wanted = recipe.workers
    resources: dict[str, float] = {"CPU": wanted.num_cpus, **wanted.resources}
    if use_gpu:
        resources["GPU"] = 1.0 if wanted.num_gpus is None else wanted.num_gpus
    if wanted.memory_gb is not None:
        resources["memory"] = wanted.memory_gb * 1e9
    return resources


def run_config(job: TrainJob) -> RunConfig:
    """Of one more start of the run."""
    return RunConfig(
        name=f"{job.name}-attempt-{_next_attempt(job.run_uri)}",
        failure_config=FailureConfig(max_failures=job.recipe.training.max_failures),
        **_ray_storage(job.run_uri),
    )


def torch_config(recipe: Recipe, use_gpu: bool) -> TorchConfig:
    """How ranks talk, and how long they wait for each other where nothing else ends them."""
    deadline = recipe.training.first_step_deadline_seconds
    return TorchConfig(
        backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo",
        timeout_s=_NO_DEADLINE_SECONDS if deadline is None else math.ceil(deadline),
    )


@contextmanager
def patience(recipe: Recipe) -> Iterator[None]:
    """Ray takes these from the environment alone; what the user has set there wins."""
    wanted = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": recipe.workers.start_timeout_seconds,
              "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": recipe.training.step_deadline_seconds}  # fmt: skip
    ours = {
        name: str(value) for name, value in wanted.items() if value is not None and name not in os.environ
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


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
