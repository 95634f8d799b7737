"""Out of memory: told with the settings that take less of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dalle2_train.errors import RefusedError
from dalle2_train.parallel.shard import ParallelConfig

_ON_CPU = "can't allocate memory"


class MemoryRefusal(RefusedError):  # noqa: N818 - the errors of a user's doing are told by their exit code
    """The step, or the weights alone, do not fit into memory, and would not the next time."""


@dataclass(frozen=True)
class Load:
    """What a rank computes at once, and how."""

    num_samples: int
    """0: the weights alone are placed."""
    may_split: bool
    """Would a smaller `training.micro_batch_size` change no result?"""
    parallel: ParallelConfig
    device_type: str
    num_ranks: int


@contextmanager
def told_what_fits(load: Load) -> Iterator[None]:
    """Raises MemoryRefusal, on this rank, where the block runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _ON_CPU not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        what = f"{load.num_samples} samples at once do" if load.num_samples else "the weights alone do"
        raise MemoryRefusal(f"{what} not fit into memory ({reason}); try {_remedy(load)}") from error


def _remedy(load: Load) -> str:
    ways = []
    if load.num_samples > 1 and load.may_split:
        ways.append(f"training.micro_batch_size={load.num_samples // 2}, which changes no result")
    if load.num_samples > 0 and not load.parallel.activation_checkpointing:
        ways.append("parallel.activation_checkpointing=true")
    if not load.parallel.cpu_offload and load.device_type != "cpu":
        ways.append("parallel.cpu_offload=true, which moves weights to the host's memory")
    if load.parallel.shard != "auto" and load.parallel.shard < load.num_ranks:
        ways.append("more ranks to a copy of the weights (parallel.shard)")
    fewer = ", or fewer samples (training.global_batch_size)" if load.num_samples > 0 else ""
    return "; ".join([*ways, f"more --workers{fewer}"])
