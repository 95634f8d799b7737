"""The optimizer over a network's trained parameters, with a learning rate that depends on the step alone."""

import math
from typing import Any

import torch
from torch import nn

from dalle2_train.parallel.muon import Muon, kernels
from dalle2_train.parallel.shard import trained_parameters
from dalle2_train.training.config import OptimizerConfig


def build_optimizer(
    network: nn.Module, config: OptimizerConfig, dtype: torch.dtype | None = None
) -> torch.optim.AdamW:
    """The optimizer that `config` names; vectors (biases, gains, embeddings of one token) do not decay.

    dtype: what the network computes in, and Muon with it; None: the weights' own.
    """
    parameters = [parameter for _, parameter in trained_parameters(network)]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "eps": config.epsilon,
        "fused": True,
    }
    if config.name == "muon":
        return Muon(groups, kernels(network), dtype, **settings)
    return torch.optim.AdamW(groups, **settings)


def learning_rate(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """The rate of the update that follows `step` others: linear warm-up, then constant or a cosine to the end."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps > 0 else 1.0
    if config.schedule == "constant":
        return config.learning_rate * warmup
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, max(0.0, progress))))
    return config.learning_rate * warmup * (config.final_fraction + (1.0 - config.final_fraction) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
