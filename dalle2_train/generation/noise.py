"""The noise of a batch of prompts, keyed so that it belongs to the prompt's place and not to the batch."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from dalle2_train import seeding


class Draws(NamedTuple):
    """Names the noise of a batch: prompt i of a list gets the same noise whatever the batches are."""

    seed: int
    index: Tensor
    """(B,) int64: the prompts' places in the list."""

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        """x_T of a stage, (B, *shape)."""
        return seeding.normal(shape, self.seed, f"generation/{stage}", 0, self.index)

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        """The noise added after denoising step `step` (from 0) of a stage, (B, *shape)."""
        return seeding.normal(shape, self.seed, f"generation/{stage}", step + 1, self.index)
