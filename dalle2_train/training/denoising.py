"""What the three denoisers share: their schedule and objective, the draws of a step, and dropped text.

Legend: B batch, L text length, E embedding.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dalle2_train.diffusion.objective import ObjectiveConfig, denoising_loss
from dalle2_train.diffusion.schedule import ScheduleConfig, noise_schedule
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.draws import DiffusionDraws, diffusion_draws
from dalle2_train.training.protocols import Loss


class DenoisingModule(UnclipModule):
    """A network that is trained to undo noise; subclasses prepare its inputs in `compute_loss`."""

    def __init__(
        self, network: nn.Module, schedule: ScheduleConfig, objective: ObjectiveConfig, *training: Any
    ) -> None:
        """`training`: TrainingConfig, OptimizerConfig and, if any, ParallelConfig."""
        super().__init__(network, *training)
        self.schedule = noise_schedule(schedule)
        self.objective = objective

    def draw(self, x_0: Tensor, index: Tensor, step: int) -> DiffusionDraws:
        """Timesteps and noise for `x_0` (B, …), whose samples are `index` (B,)."""
        num_steps, shift = self.schedule.num_steps, self.objective.timestep_shift
        return diffusion_draws(self.seed, step, index, num_steps, x_0.shape[1:], x_0.dtype, shift)

    def loss(self, prediction: Tensor, x_0: Tensor, x_t: Tensor, draws: DiffusionDraws) -> Loss:
        """The mean over the batch."""
        schedule = self.schedule.to(x_0.device)
        losses = denoising_loss(schedule, self.objective, prediction, x_0, x_t, draws.t, draws.eps)  # (B,)
        return Loss(losses.mean())


def drop_text(text: Text, null_text: Text, keep: Tensor) -> Text:
    """`text` (B) with that of no text (1) where `keep` (B,) is False; the mask goes along."""
    replaced = [
        torch.where(keep.view(-1, *(1,) * (given.ndim - 1)), given, null.to(given))
        for given, null in zip(text, null_text, strict=True)
    ]
    return type(text)(*replaced)


def to_signal(image: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 pictures → [-1, 1]."""
    return image.to(dtype) / 127.5 - 1


def check_probability(name: str, value: float) -> None:
    """Raises InputError unless `value` is in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{name} is {value}; it must be in [0, 1]")
