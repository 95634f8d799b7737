"""Layers that begin by adding nothing."""

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def zero_init(layer: M) -> M:
    """The layer with all its parameters set to zero: what it ends begins as the identity, or as the mean prediction.

    Dhariwal & Nichol 2021 do so with the last layer of every residual branch, Ho et al. 2020 with the network's last.
    """
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
