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


class News(NamedTuple):
    """What a rank has to say at a step, beside its loss."""

    stop: bool = False
    """It was asked to stop."""
    failed: bool = False
    """It cannot go on: it has no batch for the step, or its checkpoint could not be written."""
    data: DataNews = DataNews()
    seconds: tuple[float, ...] = ()
    """Of what it did alone since the last step, as many numbers as on every other rank."""


class Agreement(NamedTuple):
    """What holds on all ranks."""

    loss: float
    """The mean over ranks; NaN where some rank's is not finite."""
    gradient_norm: float
    finite: bool
    """Neither a loss nor the gradient is infinite or NaN on any rank."""
    stop: bool
    """Some rank was asked to stop."""
    failed: bool
    """Some rank cannot go on."""
    data: DataNews
    """Of all ranks together."""
    seconds: tuple[tuple[float, ...], ...]
    """Of every rank."""
    metrics: dict[str, float]
    """Means over ranks."""


def agree(
    loss: Tensor, squared_norm: Tensor, news: News, metrics: Mapping[str, Tensor], mesh: DeviceMesh
) -> Agreement:
    """Exchange what this rank found in the step. loss, squared_norm, metrics: (); the same names on every rank."""
    names = sorted(metrics)
    bad = (~torch.isfinite(loss)).double()
    counts = torch.tensor([news.stop, news.failed, *news.data], dtype=torch.float64, device=loss.device)
    numbers = [bad, *counts, loss, squared_norm, *(metrics[name] for name in names)]
    totals = torch.stack([number.detach().double().to(loss.device).reshape(()) for number in numbers])
    packed = torch.cat([totals, _own_slot(news.seconds, mesh).to(loss.device)])
    if dist.is_initialized() and mesh.size() > 1:
        dist.all_reduce(packed)
    totals, slots = packed.split([len(numbers), packed.numel() - len(numbers)])
    num_bad, num_stop, num_failed, num_met, num_faulty, loss_sum, norm_sum, *metric_sums = totals.tolist()
    # Every replica has put the same shards' norms into the sum.
    norm = math.sqrt(norm_sum / mesh.size(0)) if norm_sum >= 0 else math.nan
    return Agreement(
        loss=loss_sum / mesh.size(),
        gradient_norm=norm,
        finite=num_bad == 0 and math.isfinite(norm),
        stop=num_stop > 0,
        failed=num_failed > 0,
        data=DataNews(int(num_met), int(num_faulty)),
        seconds=tuple(map(tuple, slots.view(mesh.size(), -1).tolist())) if news.seconds else (),
        metrics={name: total / mesh.size() for name, total in zip(names, metric_sums, strict=True)},
    )


def _own_slot(seconds: tuple[float, ...], mesh: DeviceMesh) -> Tensor:
    """(world_size · len(seconds),) float64, zeros but for this rank's: their sum holds those of every rank."""
    slots = torch.zeros(mesh.size(), len(seconds), dtype=torch.float64)
    slots[dist.get_rank() if dist.is_initialized() else 0] = torch.tensor(seconds, dtype=torch.float64)
    return slots.flatten()
