"""Processes that begin a training of one name at the same moment."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.checkpoints.lease import Lease
from dalle2_train.errors import InputError


def race(barrier: Any, runs: list[str], told: Path, seed: int) -> None:
    """In each of `runs` everyone starts, and whoever got the lease keeps it until all have tried.

    told: a folder for the winners' files, RUN/PID.
    """
    draw = random.Random(seed)
    for name in ("exists", "read_bytes", "publish_bytes", "publish_new", "rename", "remove"):
        setattr(storage, name, _hesitating(getattr(storage, name), draw))
    for run in runs:
        lease = Lease(run)
        barrier.wait(60)
        try:
            with lease:
                (told / Path(run).name / str(os.getpid())).touch()
                barrier.wait(60)
        except InputError:
            barrier.wait(60)


def _hesitating(function: Callable[..., Any], draw: random.Random) -> Callable[..., Any]:
    """So that the others come in between in every way."""

    def call(*arguments: Any) -> Any:
        time.sleep(draw.choice((0.0, 0.0, draw.random() * 3e-3)))
        return function(*arguments)

    return call
