"""Is there room for the workers? Ray waits for it without a word."""

import sys
from collections.abc import Iterable, Mapping

import ray

from dalle2_train.errors import InputError
from dalle2_train.launch.ray_configs import resources_of_worker
from dalle2_train.launch.worker_count import WorkerCount
from dalle2_train.recipe import Recipe


def check_room(recipe: Recipe, workers: WorkerCount, use_gpu: bool, is_ours: bool) -> None:
    """Says on stderr what the cluster lacks now, for it may grow. is_ours: this machine's own Ray, which does not:
    InputError."""
    each = resources_of_worker(recipe, use_gpu)
    wanted = {name: amount * workers.least for name, amount in each.items()}
    there = ray.cluster_resources()
    free = there if is_ours else ray.available_resources()
    if lacking := _lacking(wanted, there):
        told, has = _told(lacking, lacking), _told(lacking, there)
        if is_ours:
            raise InputError(
                f"{workers.least} workers need {told}, and this machine's Ray has {has}; take fewer --workers, lower "
                "workers.num_cpus, num_gpus, memory_gb or resources, or give a cluster's RAY_ADDRESS"
            )
        _say(f"waiting for machines: {workers.least} workers need {told}, and the cluster has {has}")
    elif busy := _lacking(wanted, free):
        told, has = _told(busy, busy), _told(busy, free)
        _say(
            f"waiting for others to end: {workers.least} workers need {told}, and of the cluster {has} is free"
        )
    if not use_gpu and not is_ours and recipe.workers.num_gpus is None:
        _say(
            "training on CPUs, for the cluster has no GPU now; workers.num_gpus=1 waits for machines that have"
        )


def _lacking(wanted: Mapping[str, float], there: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in wanted.items() if amount > there.get(name, 0.0)}


def _told(names: Iterable[str], amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amounts.get(name, 0.0):g} {name}" for name in names)


def _say(what: str) -> None:
    print(what, file=sys.stderr)
