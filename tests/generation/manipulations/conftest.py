"""Pictures, and settings that are quick."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_train.config import build
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.generation.config import GenerationConfig, UpsamplerStageConfig
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.manipulations.drawing import DEFAULTS
from dalle2_train.generation.manipulations.pictures import Picture, open_picture
from dalle2_train.generation.unclip import Unclip

UPSAMPLER = UpsamplerStageConfig(num_steps=2)


@pytest.fixture(scope="session")
def unclip(models: Mapping[str, str]) -> Unclip:
    """All the parts, whose decoder predicts little over a range of noise that is small.

    With random weights alone DDIM would run away to pictures of black and white.
    """
    unclip = load_unclip(list(models.values()))
    for parameter in unclip.decoder.network.unet.conv_out.parameters():
        parameter.mul_(0.3)
    betas = torch.full((1000,), 0.002, dtype=torch.float64)
    schedule = NoiseSchedule(betas, torch.cumprod(1 - betas, dim=0))
    return replace(unclip, decoder=replace(unclip.decoder, schedule=schedule))


@pytest.fixture(scope="session")
def fast() -> GenerationConfig:
    """The commands' defaults, in a few steps."""
    config = build(GenerationConfig, DEFAULTS, "generation")
    return replace(config, decoder=replace(config.decoder, num_steps=10), upsampler=UPSAMPLER)


def save_picture(path: Path, seed: int, size: tuple[int, int] = (70, 52)) -> Path:
    """Soft blobs of colour, as PNG."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two pictures that are not square."""
    folder = tmp_path_factory.mktemp("pictures")
    return [save_picture(folder / f"{seed}.png", seed) for seed in (1, 2)]


@pytest.fixture(scope="session")
def pictures(files: list[Path], unclip: Unclip) -> list[Picture]:
    """The two, opened."""
    return [open_picture(str(file), unclip) for file in files]
