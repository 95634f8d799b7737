"""The schedules against their published formulas, in NumPy float64, and against diffusers."""

import numpy as np
import pytest
import torch
from diffusers import UnCLIPScheduler
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

from dalle2_train.diffusion.schedule import ScheduleConfig, at, noise_schedule
from dalle2_train.errors import InputError


def test_cosine_follows_its_alpha_bar_until_beta_is_capped() -> None:
    schedule = noise_schedule(ScheduleConfig("cosine", 1000))
    angle = (np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2
    alpha_bar = np.cos(angle) ** 2 / np.cos(angle[0]) ** 2
    assert schedule.alphas_cumprod.dtype == torch.float64
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], alpha_bar[1:-1], rtol=1e-9)
    assert schedule.betas[-1] == 0.999
    np.testing.assert_allclose(schedule.alphas_cumprod[-1], alpha_bar[-2] * 0.001, rtol=1e-9)


def test_linear_is_that_of_ddpm() -> None:
    schedule = noise_schedule(ScheduleConfig("linear", 1000))
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(schedule.betas, betas, rtol=1e-12)
    np.testing.assert_allclose(schedule.alphas_cumprod, np.cumprod(1 - betas), rtol=1e-9)


def test_linear_keeps_the_total_noise_at_another_number_of_steps() -> None:
    short, long = (noise_schedule(ScheduleConfig("linear", steps)) for steps in (500, 1000))
    np.testing.assert_allclose(short.betas, np.linspace(2e-4, 0.04, 500), rtol=1e-12)
    np.testing.assert_allclose(short.alphas_cumprod[-1].log(), long.alphas_cumprod[-1].log(), rtol=0.02)


@pytest.mark.parametrize("num_steps", [50, 1000])
def test_cosine_equals_diffusers_float32_tables(num_steps: int) -> None:
    theirs = UnCLIPScheduler(num_train_timesteps=num_steps)
    ours = noise_schedule(ScheduleConfig("cosine", num_steps))
    np.testing.assert_allclose(ours.betas.float(), theirs.betas, rtol=1e-6)
    np.testing.assert_allclose(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_without_terminal_signal_equals_diffusers_and_keeps_the_first(name: str) -> None:
    plain = noise_schedule(ScheduleConfig(name))
    ours = noise_schedule(ScheduleConfig(name, zero_terminal_snr=True))
    np.testing.assert_allclose(ours.betas, rescale_zero_terminal_snr(plain.betas), rtol=1e-9)
    np.testing.assert_allclose(ours.alphas_cumprod[0], plain.alphas_cumprod[0], rtol=1e-12)
    for dtype in (torch.float32, torch.float64):
        table = ours.computed_in(dtype).alphas_cumprod
        assert table[-1] == 0 and (table[:-1] > 0).all() and (table.diff() < 0).all()
    assert ours.zero_terminal_snr and not plain.zero_terminal_snr


def test_at_broadcasts_and_takes_the_dtype() -> None:
    entries = at(torch.arange(5, dtype=torch.float64), torch.tensor([4, 0]), torch.zeros(2, 3, 8, 8))
    assert entries.shape == (2, 1, 1, 1) and entries.dtype == torch.float32
    assert entries.flatten().tolist() == [4.0, 0.0]


def test_a_schedule_that_cannot_be_is_named() -> None:
    with pytest.raises(InputError, match="num_steps 0"):
        ScheduleConfig(num_steps=0)
    with pytest.raises(InputError, match="linear"):
        ScheduleConfig("linear", 20)
    with pytest.raises(InputError, match="zero_terminal_snr needs num_steps 2"):
        ScheduleConfig("cosine", 1, zero_terminal_snr=True)
