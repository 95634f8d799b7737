"""Small pictures made large by bicubic interpolation and by an upsampler, and how near each comes to the true ones.

Legend: B pictures, h H sides of the small and the large ones.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.generation.config import UpsamplerStageConfig
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pixels import psnr, to_uint8
from dalle2_train.generation.unclip import Part
from dalle2_train.generation.upsampling import run_upsampler
from dalle2_train.networks.upsampler import Upsampler, enlarge
from dalle2_train.training.degradation import gaussian_blur, shrink
from dalle2_train.training.denoising import to_signal
from dalle2_train.training.upsampler import UpsamplerModelConfig

SEED = 0
BATCH = 16
_MOST_DECIBELS = 20 * math.log10(255 / 0.1)


@dataclass(frozen=True)
class Score:
    """PSNR in dB over pictures, and how one set of them compares with another."""

    psnr: float
    bicubic_psnr: float
    gain: float
    """Mean over the pictures of ours minus bicubic's."""
    gain_error: float
    """Standard error of it."""
    share_better: float
    """Of the pictures."""


def degraded(images: Tensor, config: UpsamplerModelConfig) -> Tensor:
    """(B, 3, H, H) uint8 → (B, 3, h, h) in [-1, 1]: made small and worse by the training's own means, all of them."""
    make: Degradation | None = config.degradation_in_data
    if make is None:
        small = shrink(to_signal(images, torch.float32), config.network.low_size)
        return gaussian_blur(small, config.degradation.sigma)  # pyright: ignore[reportAttributeAccessIssue]
    pictures = images.permute(0, 2, 3, 1).numpy()
    keys = (seeding.key(SEED, "benchmark", number) for number in range(len(images)))
    small = [torch.from_numpy(make(*pair)) for pair in zip(pictures, keys, strict=True)]
    return to_signal(torch.stack(small).permute(0, 3, 1, 2), torch.float32)


def bicubic(small: Tensor, size: int) -> Tensor:
    """(B, 3, h, h) in [-1, 1] → (B, 3, H, H) uint8."""
    return to_uint8(enlarge(small, size))


def ours(part: Part[Upsampler], small: Tensor, sampler: UpsamplerStageConfig) -> Tensor:
    """(B, 3, h, h) in [-1, 1] → (B, 3, H, H) uint8."""
    done = []
    with torch.inference_mode():
        for start in range(0, len(small), BATCH):
            batch = small[start : start + BATCH]
            draws = Draws(SEED, torch.arange(start, start + len(batch)))
            done.append(to_uint8(run_upsampler(part, "upsampler", batch, draws, sampler, lambda: None)))
    return torch.cat(done)


def compare(
    part: Part[Upsampler], images: Tensor, small: Tensor, samplers: Mapping[str, UpsamplerStageConfig]
) -> dict[str, dict[str, Any]]:
    """Sampler → its `Score` as JSON."""
    theirs = _decibels(bicubic(small, images.shape[-1]), images)
    found = {}
    for name, sampler in samplers.items():
        mine = _decibels(ours(part, small, sampler), images)
        found[name] = {key: round(value, 3) for key, value in vars(_score(mine, theirs)).items()}
    return found


def _decibels(images: Tensor, true: Tensor) -> list[float]:
    """Of each picture, both (B, 3, H, H) uint8; equal ones have what an error of a tenth of a level would."""
    return psnr(images, true, span=255).clamp(max=_MOST_DECIBELS).tolist()


def _score(mine: list[float], theirs: list[float]) -> Score:
    gains = [a - b for a, b in zip(mine, theirs, strict=True)]
    error = statistics.stdev(gains) / len(gains) ** 0.5
    better = sum(gain > 0 for gain in gains) / len(gains)
    return Score(statistics.mean(mine), statistics.mean(theirs), statistics.mean(gains), error, better)
