"""Which kinds of collectives a rank asks torch for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from dalle2_train.launch import TrainJob
from dalle2_train.launch.worker import Host, run
from dalle2_train.training.finished import FitResult
from dalle2_train.training.strategy import MeshStrategy

FUNCTIONAL = "_c10d_functional"


class Namespaces(TorchDispatchMode):
    """Notes the namespace of every operation inside, those that DTensors are taken apart into among them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        self.seen.add(func.namespace)
        return func(*args, **(kwargs or {}))


@contextmanager
def written_to(folder: Path) -> Iterator[None]:
    """The namespaces inside, in a file of this rank's."""
    with Namespaces() as namespaces:
        yield
    (folder / f"namespaces-{dist.get_rank()}.txt").write_text(" ".join(sorted(namespaces.seen)))


def read_from(folder: Path) -> list[set[str]]:
    """What every rank has written."""
    return [set(file.read_text().split()) for file in sorted(folder.glob("namespaces-*.txt"))]


def run_noted(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """`worker.run`, whose namespaces are written beside the run."""
    with written_to(Path(job.storage)):
        return run(job, strategy, host)
