"""Which collectives a rank asks torch for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from dalle2_train.checkpoints.saver import Saver
from dalle2_train.launch import TrainJob
from dalle2_train.launch.worker import Host, run
from dalle2_train.training.finished import FitResult
from dalle2_train.training.strategy import MeshStrategy

SHORT = {"c10d::allgather_", "c10d::_allgather_base_", "c10d::allreduce_", "c10d::_reduce_scatter_base_",
         "c10d::broadcast_", "c10d::gather_", "c10d::scatter_", "c10d::barrier"}  # fmt: skip
"""What gloo calls by at most 15 letters; dalle2_train/parallel/gathering.py tells why that matters."""
LONG = "_c10d_functional::all_gather_into_tensor"
"""One that it calls by more."""


class Collectives(TorchDispatchMode):
    """Notes the names of those that a thread asks for inside, on behalf of DTensors too."""

    def __init__(self, seen: set[str]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional") and not func._schema.name.endswith("wait_tensor"):
            self._seen.add(func._schema.name)
        return func(*args, **(kwargs or {}))


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """Those inside, those of the thread that writes checkpoints among them, in a file of this rank's."""
    seen: set[str] = set()
    real = Saver._save

    def save(*args: Any) -> None:
        with Collectives(seen):
            real(*args)

    Saver._save = save
    try:
        with Collectives(seen):
            yield
    finally:
        Saver._save = real
    (folder / f"collectives-{dist.get_rank()}.txt").write_text(" ".join(sorted(seen)))


def read_from(folder: Path) -> list[set[str]]:
    """What every rank has written."""
    return [set(file.read_text().split()) for file in sorted(folder.glob("collectives-*.txt"))]


def run_noted(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """`worker.run`, whose collectives are written beside the run."""
    with written_to(Path(job.storage)):
        return run(job, strategy, host)
