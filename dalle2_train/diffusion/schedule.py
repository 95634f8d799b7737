"""How much noise there is at every timestep.

T timesteps, numbered 0 (least noise) to T - 1.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dalle2_train.errors import InputError

MAX_BETA = 0.999


@dataclass(frozen=True)
class ScheduleConfig:
    """Which noise schedule, over how many timesteps."""

    name: Literal["cosine", "linear"] = "cosine"
    """cosine: Nichol & Dhariwal 2021, eq. 17. linear: Ho et al. 2020. Only cosine can be exported to diffusers."""
    num_steps: int = 1000
    """Number of timesteps T of the forward process."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"schedule.num_steps {self.num_steps} must be at least 1")
        if self.name == "linear" and self.num_steps <= 20:
            raise InputError(f"schedule.num_steps {self.num_steps} must exceed 20 for a linear schedule")


class NoiseSchedule(NamedTuple):
    """The forward process as two float64 tables over the timesteps."""

    betas: Tensor  # (T,)
    alphas_cumprod: Tensor  # (T,)

    @property
    def num_steps(self) -> int:
        """Number of timesteps T."""
        return len(self.betas)

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same tables where the timesteps that index them live."""
        return NoiseSchedule(self.betas.to(device), self.alphas_cumprod.to(device))

    def computed_in(self, dtype: torch.dtype) -> "NoiseSchedule":
        """The tables that follow when the betas are rounded to `dtype` and multiplied up in it."""
        betas = self.betas.to(dtype)
        return NoiseSchedule(betas, torch.cumprod(1 - betas, dim=0))


def noise_schedule(config: ScheduleConfig) -> NoiseSchedule:
    """The tables (T,) of `config`, float64 on the CPU."""
    betas = cosine_betas(config.num_steps) if config.name == "cosine" else linear_betas(config.num_steps)
    return NoiseSchedule(betas, torch.cumprod(1 - betas, dim=0))


def cosine_betas(num_steps: int) -> Tensor:
    """Eq. 17 of Nichol & Dhariwal 2021 with s = 0.008, betas capped at 0.999: (T,) float64."""

    def alpha_bar(fraction: float) -> float:
        return math.cos((fraction + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [alpha_bar((t + 1) / num_steps) / alpha_bar(t / num_steps) for t in range(num_steps)]
    return (1 - torch.tensor(ratios, dtype=torch.float64)).clamp(max=MAX_BETA)


def linear_betas(num_steps: int) -> Tensor:
    """From 1e-4 to 0.02 at T = 1000 (Ho et al. 2020), scaled to keep the total noise at another T: (T,) float64."""
    scale = 1000 / num_steps
    return torch.linspace(scale * 1e-4, scale * 0.02, num_steps, dtype=torch.float64)


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """The table's (T,) entries at `t` (B,), in the dtype of `like` (B, …) and broadcastable to it."""
    return table[t].to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
