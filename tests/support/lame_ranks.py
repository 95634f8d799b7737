"""Ranks of which the second cannot do what the first does."""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dalle2_train.launch import TrainJob
from dalle2_train.launch.worker import Host, run
from dalle2_train.training.finished import FitResult
from dalle2_train.training.strategy import MeshStrategy


def run_without_data(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """As on a machine that does not see the folder of the data."""
    return run(_on_second(job, data=f"{job.data}-absent"), strategy, host)


def run_without_beginning(job: TrainJob, strategy: MeshStrategy, host: Host) -> FitResult:
    """Likewise with the weights to begin with."""
    return run(_on_second(job, init_from=f"{job.init_from}-absent"), strategy, host)


def _on_second(job: TrainJob, **changed: Any) -> TrainJob:
    return replace(job, **changed) if dist.get_rank() == 1 else job


def fail_before_drawing(network: nn.Module) -> None:
    """While the other draws with weights of which this one holds a half."""
    if dist.get_rank() == 1:
        raise ValueError("no room")
    _draw(network)


def fail_after_drawing(network: nn.Module) -> None:
    """When nobody waits for it any more."""
    _draw(network)
    if dist.get_rank() == 1:
        raise ValueError("no room")


def _draw(network: nn.Module) -> None:
    network(torch.zeros(2, 5, dtype=next(network.parameters()).dtype))
