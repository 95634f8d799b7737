"""One rank in this process: a process group of one, so that the same strategy trains here as on a cluster."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.strategy import MeshStrategy


@contextmanager
def one_rank_strategy(config: ParallelConfig) -> Iterator[MeshStrategy]:
    """The strategy of a run without workers; its process group lives as long as the block. No port is opened."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    # torch would write "[rank0]" before every error of this process from here on.
    excepthook = sys.excepthook
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    sys.excepthook = excepthook
    try:
        yield MeshStrategy(config, device)
    finally:
        dist.destroy_process_group()
