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
    zero_terminal_snr: bool = False
    """Shift and scale √ᾱ so that it is 0 at T - 1 (Lin et al. 2023): the last x_t is noise alone, as sampling begins
    with. It asks for v_prediction or sample, and cannot be exported to diffusers."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"schedule.num_steps {self.num_steps} must be at least 1")
        if self.name == "linear" and self.num_steps <= 20:
            raise InputError(f"schedule.num_steps {self.num_steps} must exceed 20 for a linear schedule")
        if self.zero_terminal_snr and self.num_steps < 2:
            raise InputError(
                "schedule.zero_terminal_snr needs num_steps 2 or more: one with a signal, one without"
            )


class NoiseSchedule(NamedTuple):
    """The forward process as two float64 tables over the timesteps."""

    betas: Tensor  # (T,)
    alphas_cumprod: Tensor  # (T,)

    @property
    def num_steps(self) -> int:
        """Number of timesteps T."""
        return len(self.betas)

    @property
    def zero_terminal_snr(self) -> bool:
        """Whether the last x_t is noise alone."""
        return bool(self.alphas_cumprod[-1] == 0)

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
    if config.zero_terminal_snr:
        betas = without_terminal_signal(betas)
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


def without_terminal_signal(betas: Tensor) -> Tensor:
    """Betas (T,) whose √ᾱ is that of `betas`, moved on a line so that the first stays and the last becomes 0.

    Algorithm 1 of Lin et al. 2023. The last beta is 1.
    """
    root = torch.cumprod(1 - betas, dim=0).sqrt()  # (T,)
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas_cumprod = root.square()
    before = torch.cat([torch.ones_like(betas[:1]), alphas_cumprod[:-1]])
    return 1 - alphas_cumprod / before


def at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """The table's (T,) entries at `t` (B,), in the dtype of `like` (B, …) and broadcastable to it."""
    return table[t].to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))
