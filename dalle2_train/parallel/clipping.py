"""The gradient's norm over all shards, whose sum over ranks is for the step's one all-reduce, or for its own."""

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dalle2_train.parallel.shard import local


def local_squared_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """() float64: the squared norm of this rank's part of the gradient."""
    gradients = _local_gradients(parameters)
    if not gradients:
        return torch.zeros((), dtype=torch.float64)
    return torch.stack(torch._foreach_norm(gradients)).double().square().sum()


def global_norm(parameters: Sequence[nn.Parameter], mesh: DeviceMesh) -> float:
    """The norm of the whole gradient, by an all-reduce of its own; every rank calls it."""
    total = local_squared_norm(parameters).to(mesh.device_type)
    if dist.is_initialized() and mesh.size() > 1:
        dist.all_reduce(total)
    return math.sqrt(total.item() / mesh.size(0))  # every replica has put in the same shards


def clip_coefficient(norm: float, max_norm: float | None) -> float:
    """What to multiply the gradient with so that its norm is at most max_norm."""
    return 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))


def scale_gradients(parameters: Sequence[nn.Parameter], coefficient: float) -> None:
    """Multiply every gradient by the coefficient, in place."""
    gradients = _local_gradients(parameters)
    if gradients and coefficient != 1.0:
        torch._foreach_mul_(gradients, coefficient)


def _local_gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    gradients = (local(p.grad) for p in parameters if p.grad is not None)
    return [gradient for gradient in gradients if gradient.numel() > 0]
