"""The schedules, and NumPy's own account of them."""

import numpy as np
import pytest
import torch

from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=["cosine", "linear"])
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return noise_schedule(ScheduleConfig(request.param))


@pytest.fixture
def cosine() -> NoiseSchedule:
    return noise_schedule(ScheduleConfig("cosine"))


@pytest.fixture
def alphas_cumprod(schedule: NoiseSchedule) -> np.ndarray:
    """The tables again, as running products in NumPy."""
    betas = schedule.betas.numpy()
    return np.array([np.prod(1 - betas[: t + 1]) for t in range(len(betas))])
