"""Averaged weights, shard by shard: what is sampled from, evaluated and released (Ho et al. 2020)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dalle2_train.parallel.shard import local, reshard, trained_parameters


def warmed_up_decay(decay: float, step: int) -> float:
    """The decay at a step: a young average forgets its random start quickly."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """The running average of a network's trained parameters; shards like them.

    `DTensor.from_local` misjudges uneven shards, so the average starts as a clone of each DTensor.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._parameters = [parameter for _, parameter in trained_parameters(network)]
        self.averages: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in trained_parameters(network)
        }

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average ← decay · average + (1 - decay) · parameter."""
        torch._foreach_lerp_(self._local_averages(), self._local_parameters(), 1.0 - decay)

    @contextmanager
    def swap(self) -> Iterator[None]:
        """Inside, the network computes with the averages; every rank enters and leaves at the same step."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        reshard(self.network)
        for average, parameter in zip(self._local_averages(), self._local_parameters(), strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def _local_averages(self) -> list[Tensor]:
        return [local(average) for average in self.averages.values()]

    def _local_parameters(self) -> list[Tensor]:
        return [local(parameter.detach()) for parameter in self._parameters]
