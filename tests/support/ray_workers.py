"""Ray workers of a training in this process's own cluster, to be killed in its midst."""

import os
import sys
import threading
import time
from pathlib import Path

import psutil


def local_ray(num_cpus: int) -> None:
    """A Ray of this process's own, whose workers find the tests' modules."""
    import ray

    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=num_cpus, include_dashboard=False, log_to_driver=True, runtime_env={"env_vars": variables}
    )


def workers_of(parent: int | None = None) -> list[psutil.Process]:
    """Processes that train now, below `parent` (this process)."""
    below = psutil.Process(parent).children(recursive=True)
    return [process for process in below if "RayTrainWorker" in _words(process)]


def kill_a_worker(run: Path, step: int) -> list[int]:
    """In a thread of its own, once `step` is done; the list that is returned then holds the worker's process id."""
    killed: list[int] = []
    threading.Thread(target=_kill, args=(run, step, killed), daemon=True).start()
    return killed


def wait_for_step(run: Path, step: int) -> None:
    """Until the run in that folder has recorded so many steps."""
    record = run / "losses.jsonl"
    while not record.exists() or record.read_text().count("\n") < step:
        time.sleep(0.02)


def _kill(run: Path, step: int, killed: list[int]) -> None:
    wait_for_step(run, step)
    victim = workers_of()[0]
    victim.kill()
    killed.append(victim.pid)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""
