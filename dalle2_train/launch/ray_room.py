"""Is there room for the workers? Ray waits for it without a word."""

import sys

import ray

from dalle2_train.errors import InputError
from dalle2_train.launch.ray_configs import resources_of_worker, uses_gpu
from dalle2_train.launch.worker_count import WorkerCount
from dalle2_train.recipe import Recipe


def check_room(recipe: Recipe, workers: WorkerCount, is_ours: bool) -> None:
    """Says on stderr what the cluster lacks now, for it may grow. is_ours: this machine's own Ray, which does not:
    InputError."""
    there, each = ray.cluster_resources(), resources_of_worker(recipe, uses_gpu(recipe))
    lacking = {name: amount * workers.least for name, amount in each.items()
               if amount * workers.least > there.get(name, 0.0)}  # fmt: skip
    if not lacking:
        return
    told = ", ".join(f"{amount:g} {name}" for name, amount in lacking.items())
    has = ", ".join(f"{there.get(name, 0.0):g} {name}" for name in lacking)
    if is_ours:
        raise InputError(
            f"{workers.least} workers need {told}, and this machine's Ray has {has}; take fewer --workers, lower "
            "workers.num_cpus, num_gpus, memory_gb or resources, or give a cluster's RAY_ADDRESS"
        )
    print(
        f"waiting for machines: {workers.least} workers need {told}, and the cluster has {has}",
        file=sys.stderr,
    )
