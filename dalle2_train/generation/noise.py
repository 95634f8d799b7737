"""The noise of a batch of prompts, keyed so that it belongs to the prompt's place and not to the batch.

Legend: B prompts, K draws for each.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dalle2_train import seeding


class Noise(Protocol):
    """What a stage asks for its noise; `Draws` is one."""

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        """x_T of a stage, (B, *shape)."""
        ...

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        """The noise added after denoising step `step` (from 0) of a stage, (B, *shape)."""
        ...


class Draws(NamedTuple):
    """Names the noise of a batch: prompt i of a list gets the same noise whatever the batches are."""

    seed: int
    index: Tensor
    """(B,) int64: the prompts' places in the list."""
    num_draws: int = 1
    """K, samples for each prompt; the first has the noise that it has when it is alone."""

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        """x_T of a stage, (K·B, *shape), draw by draw."""
        return self._normal(stage, shape, 0)

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        """The noise added after denoising step `step` (from 0) of a stage, (K·B, *shape), draw by draw."""
        return self._normal(stage, shape, step + 1)

    def _normal(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        purposes = [f"generation/{stage}"]
        purposes += [f"generation/{stage}/draw {draw}" for draw in range(1, self.num_draws)]
        return torch.cat(
            [seeding.normal(shape, self.seed, purpose, step, self.index) for purpose in purposes]
        )
