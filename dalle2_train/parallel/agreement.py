"""The one small all-reduce of a step: after it, every rank knows the same and decides the same."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


class DataNews(NamedTuple):
    """What a rank has to say about its data."""

    num_met: int = 0
    """Samples that its lanes have come to so far, faulty ones included."""
    num_faulty: int = 0
    """Faulty ones among them."""
    failed: bool = False
    """It has no batch for the step."""


class Agreement(NamedTuple):
    """What holds on all ranks."""

    loss: float
    """The mean over ranks; NaN where some rank's is not finite."""
    gradient_norm: float
    finite: bool
    """Neither a loss nor the gradient is infinite or NaN on any rank."""
    stop: bool
    """Some rank was asked to stop."""
    data: DataNews
    """Of all ranks together."""
    metrics: dict[str, float]
    """Means over ranks."""


def agree(
    loss: Tensor,
    squared_norm: Tensor,
    stop: bool,
    data: DataNews,
    metrics: Mapping[str, Tensor],
    mesh: DeviceMesh,
) -> Agreement:
    """Exchange what this rank found in the step. loss, squared_norm, metrics: (); the same names on every rank."""
    names = sorted(metrics)
    bad = (~torch.isfinite(loss)).double()
    counts = torch.tensor([stop, *data], dtype=torch.float64, device=loss.device)
    numbers = [bad, *counts, loss, squared_norm, *(metrics[name] for name in names)]
    packed = torch.stack([number.detach().double().to(loss.device).reshape(()) for number in numbers])
    if dist.is_initialized() and mesh.size() > 1:
        dist.all_reduce(packed)
    num_bad, num_stop, num_met, num_faulty, num_failed, loss_sum, norm_sum, *metric_sums = packed.tolist()
    # Every replica has put the same shards' norms into the sum.
    norm = math.sqrt(norm_sum / mesh.size(0)) if norm_sum >= 0 else math.nan
    return Agreement(
        loss=loss_sum / mesh.size(),
        gradient_norm=norm,
        finite=num_bad == 0 and math.isfinite(norm),
        stop=num_stop > 0,
        data=DataNews(int(num_met), int(num_faulty), num_failed > 0),
        metrics={name: total / mesh.size() for name, total in zip(names, metric_sums, strict=True)},
    )
