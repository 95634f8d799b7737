"""Pictures as (B, H, W, C) in memory, which bf16 convolutions on CPUs and GPUs run faster on."""

from typing import Any

import torch
from torch import Tensor, nn


def use_channels_last(network: nn.Module, weights: bool) -> None:
    """Pictures enter the network as (B, H, W, C) in memory; so do kernels, but FSDP2 wants its own contiguous."""
    if weights:
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    network.register_forward_pre_hook(_to_channels_last, with_kwargs=True)


def _to_channels_last(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_converted(value) for value in args), {
        name: _converted(value) for name, value in kwargs.items()
    }


def _converted(value: Any) -> Any:
    is_picture = isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()
    return value.contiguous(memory_format=torch.channels_last) if is_picture else value
