"""Sharpness-aware minimisation (Foret et al. 2021): the step is taken along the gradient of the worst point nearby.

Nearby is a ball of radius rho around the weights, and its worst point, to first order, lies along their gradient. Each
step computes two gradients, so it takes twice the time.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dalle2_train.parallel.clipping import global_norm
from dalle2_train.parallel.shard import local, reshard


def sharpness_aware_gradient(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    mesh: DeviceMesh,
    rho: float,
    loss: Tensor,
    backward: Callable[[], Tensor],
) -> Tensor:
    """Put the gradient at weights + rho · gradient / its norm in the place of the parameters' gradient, which is that
    at the weights as they are and stay.

    loss (): there, where the gradient is from. `backward()` adds the gradient at the present weights to the parameters
    and returns the loss there, from the same draws. Returns `loss`; where that uphill is no number, NaN. A gradient
    that is zero has no uphill, one that is no number stays for the caller to find. Every rank calls it.
    """
    norm = global_norm(parameters, mesh)
    if norm == 0 or not math.isfinite(norm):
        return loss
    with uphill(network, parameters, rho / norm):
        above = backward()
    return torch.where(above.isfinite(), loss, torch.nan)


@contextmanager
def uphill(network: nn.Module, parameters: Sequence[nn.Parameter], scale: float) -> Iterator[None]:
    """Inside, the network computes at weights + scale · gradient, and the gradient is cleared; every rank enters."""
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    weights = [local(parameter.detach()) for parameter in moved]
    gradients = [local(parameter.grad) for parameter in moved]  # pyright: ignore[reportArgumentType]
    kept = [weight.clone() for weight in weights]
    _set(network, weights, torch._foreach_add(weights, gradients, alpha=scale))
    for parameter in moved:
        parameter.grad = None
    try:
        yield
    finally:
        _set(network, weights, kept)


@torch.no_grad()
def _set(network: nn.Module, weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    reshard(network)
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
