"""Ray workers of a training in this process's own cluster, to be killed in its midst."""

import os
import signal
import threading
import time
from pathlib import Path

import psutil


def kill_a_worker(run: Path, step: int) -> list[int]:
    """In a thread of its own, once `step` is done; the list that is returned then holds the worker's process id."""
    killed: list[int] = []
    threading.Thread(target=_kill, args=(run, step, killed), daemon=True).start()
    return killed


def wait_for_step(run: Path, step: int) -> None:
    """Until the run in that folder has recorded so many steps."""
    record = run / "losses.jsonl"
    while not record.exists() or record.read_text().count("\n") < step:
        time.sleep(0.05)


def _kill(run: Path, step: int, killed: list[int]) -> None:
    wait_for_step(run, step)
    workers = [
        p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())
    ]
    os.kill(workers[0].pid, signal.SIGKILL)
    killed.append(workers[0].pid)
