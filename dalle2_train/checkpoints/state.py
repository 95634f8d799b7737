"""What is in a checkpoint's tensors: "model.*" parameters and buffers, "ema.*" averages, "optimizer.*" moments."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

_OPTIONS = StateDictOptions(flatten_optimizer_state_dict=True)


def state_of(
    network: nn.Module, averages: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Every tensor to save, as this rank holds it; loading in place into it restores the network and the averages."""
    return {
        "model": get_model_state_dict(network),
        "ema": dict(averages),
        "optimizer": get_optimizer_state_dict(network, optimizer, options=_OPTIONS),
    }


def restore_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put loaded moments back: unlike parameters, they are not loaded in place."""
    set_optimizer_state_dict(network, optimizer, state["optimizer"], options=_OPTIONS)
