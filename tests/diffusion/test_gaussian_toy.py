"""Every sampler on Gaussian data, whose optimal denoiser is known: what it draws is known too, mean and variance.

The data are D independent coordinates of different means and spreads. The denoiser is affine, so what a sampler draws
is affine in its noises, and the mean and variance of that are exact sums: nothing is estimated.
"""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from gaussians import optimal
from torch import Tensor

from dalle2_train.diffusion.prediction import PredictionType
from dalle2_train.diffusion.samplers import Denoise, SamplerConfig, invert, sample, timesteps
from dalle2_train.diffusion.samplers.analytic_dpm import estimate_x_0_variance
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule
from dalle2_train.errors import InputError

MEAN = torch.tensor([0.7, -1.0, 0.0], dtype=torch.float64)
STD = torch.tensor([0.4, 1.1, 0.1], dtype=torch.float64)
ROUND = torch.full((3,), 0.4, dtype=torch.float64)


@pytest.fixture
def silent() -> NoiseSchedule:
    """Without a signal at T - 1."""
    return noise_schedule(ScheduleConfig("cosine", zero_terminal_snr=True))


def gaussian_denoiser(
    schedule: NoiseSchedule, kind: PredictionType, std: Tensor = STD, learned_steps: int = 0
) -> Denoise:
    """E[x_0 | x_t] as `kind`; with `learned_steps` also the exact variance of each of so many reverse steps."""
    chosen = timesteps(schedule.num_steps, learned_steps) if learned_steps else []
    before_of = dict(zip(chosen, [*chosen[1:], None], strict=False))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        a = schedule.alphas_cumprod[t[0]].item()
        x_0, eps = optimal(x_t, schedule.alphas_cumprod[t[0]], MEAN, std.square().diag())
        v = math.sqrt(a) * eps - math.sqrt(1 - a) * x_0
        prediction = {"sample": x_0, "epsilon": eps, "v_prediction": v}[kind]
        if not learned_steps:
            return prediction
        before = before_of[int(t[0])]
        a_before = 1.0 if before is None else schedule.alphas_cumprod[before].item()
        alpha = a / a_before
        exact = (a_before * std**2 + 1 - a_before) * (1 - alpha) / (a * std**2 + 1 - a)  # (D,)
        low, high = max((1 - alpha) * (1 - a_before) / (1 - a), 1e-20), 1 - alpha
        fraction = 2 * (exact / low).log() / math.log(high / low) - 1
        return torch.cat([prediction, fraction.expand_as(x_t)], dim=1)

    return denoise


def mean_and_variance(
    denoise: Denoise, schedule: NoiseSchedule, config: SamplerConfig, of_x_0: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(D,) each, of what the sampler draws. Row 0 has no noise at all, row k + 1 a unit of the k-th noise alone."""
    rows = torch.eye(config.num_steps + 2, dtype=torch.float64)[:, :, None].expand(-1, -1, 3)
    out = sample(denoise, rows[1], schedule, config, lambda i: rows[i + 2], of_x_0)
    return out[0], (out[1:] - out[0]).square().sum(dim=0)


def known_x_0_variance(schedule: NoiseSchedule, std: Tensor) -> Tensor:
    """(T,) from the mean squared eps that the optimal denoiser has over such data."""
    a = schedule.alphas_cumprod[:, None]
    mean_squared_eps = ((1 - a) / (a * std**2 + 1 - a)).mean(dim=1)
    return estimate_x_0_variance(schedule, mean_squared_eps, std.square().mean().item())


def error(found: tuple[Tensor, Tensor], std: Tensor = STD) -> float:
    mean, variance = found
    return max((mean - MEAN).abs().max().item(), (variance - std**2).abs().max().item())


@pytest.mark.parametrize("num_steps", [10, 50, 1000])
def test_exact_variances_are_exact_in_any_number_of_steps(num_steps: int, cosine: NoiseSchedule) -> None:
    config = SamplerConfig(num_steps=num_steps, variance="learned_range", clip_sample_range=None)
    denoise = gaussian_denoiser(cosine, "epsilon", learned_steps=num_steps)
    # The last step adds no noise: the variance of x_0 given x at t = 0, 4e-5, is missing.
    assert error(mean_and_variance(denoise, cosine, config)) < 1e-4


@pytest.mark.parametrize("num_steps", [10, 50, 1000])
def test_analytic_variances_are_exact_where_all_directions_are_alike(
    num_steps: int, cosine: NoiseSchedule
) -> None:
    config = SamplerConfig("analytic_dpm", num_steps, clip_sample_range=None, prediction_type="sample")
    denoise = gaussian_denoiser(cosine, "sample", ROUND)
    found = mean_and_variance(denoise, cosine, config, known_x_0_variance(cosine, ROUND))
    assert error(found, ROUND) < 1e-4


def test_analytic_variances_are_the_best_that_are_equal_in_all_directions(cosine: NoiseSchedule) -> None:
    """Bao et al. 2022, theorem 1: of all, they are nearest to the data in KL divergence."""
    denoise, divergences = gaussian_denoiser(cosine, "epsilon"), {}
    for name, variance in (("analytic_dpm", "fixed_small"), ("ddpm", "fixed_small"), ("ddpm", "fixed_large")):
        config = SamplerConfig(name, 10, variance=variance, clip_sample_range=None)
        known = known_x_0_variance(cosine, STD)
        mean, drawn = mean_and_variance(denoise, cosine, config, known)
        kl = 0.5 * ((drawn / STD**2).log() + (STD**2 + (mean - MEAN) ** 2) / drawn - 1).sum()
        divergences[name, variance] = kl.item()
    assert min(divergences, key=divergences.__getitem__)[0] == "analytic_dpm", divergences


def test_the_variance_of_x_0_given_x_t(cosine: NoiseSchedule, silent: NoiseSchedule) -> None:
    for schedule in (cosine, silent):
        a = schedule.alphas_cumprod.numpy()[:, None]
        truth = (STD.numpy() ** 2 * (1 - a) / (a * STD.numpy() ** 2 + 1 - a)).mean(axis=1)
        np.testing.assert_allclose(known_x_0_variance(schedule, STD), truth, rtol=1e-6)
    # What an estimate can never be: less certain than the data, or surer than sure.
    low, high = (torch.full((1000,), value, dtype=torch.float64) for value in (-1.0, 1.5))
    assert estimate_x_0_variance(cosine, low, 0.5).max() == 0.5
    assert estimate_x_0_variance(cosine, high, 0.5).max() == 0


SAMPLERS = {
    "ddpm, small": SamplerConfig(),
    "ddpm, large": SamplerConfig(variance="fixed_large"),
    "ddim": SamplerConfig("ddim"),
    "ddim, eta 0.7": SamplerConfig("ddim", eta=0.7),
    "dpm_solver": SamplerConfig("dpm_solver"),
    "analytic_dpm": SamplerConfig("analytic_dpm"),
}


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize(("schedule_name", "most"), [("cosine", 0.04), ("linear", 0.08)])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_mean_and_variance_are_reached_as_steps_grow(
    name: str, schedule_name: Literal["cosine", "linear"], most: float, zero_terminal_snr: bool
) -> None:
    """To a share of each coordinate's own variance, the narrow one's too."""
    schedule = noise_schedule(ScheduleConfig(schedule_name, zero_terminal_snr=zero_terminal_snr))
    kind: PredictionType = "v_prediction" if zero_terminal_snr else "epsilon"
    denoise, known = gaussian_denoiser(schedule, kind), known_x_0_variance(schedule, STD)
    errors = []
    for num_steps in (20, 100, 1000):
        config = replace(SAMPLERS[name], num_steps=num_steps, clip_sample_range=None, prediction_type=kind)
        mean, variance = mean_and_variance(denoise, schedule, config, known)
        errors.append(
            max(((mean - MEAN) / STD).abs().max().item(), (variance / STD**2 - 1).abs().max().item())
        )
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < most, errors


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_inversion_finds_the_noise_as_steps_grow(kind: PredictionType, cosine: NoiseSchedule) -> None:
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None].expand(-1, 3)
    denoise, errors = gaussian_denoiser(cosine, kind), []
    for num_steps in (50, 250, 1000):
        config = SamplerConfig("ddim", num_steps, clip_sample_range=None, prediction_type=kind)
        drawn = sample(denoise, x_T, cosine, config, no_noise)
        errors.append((invert(denoise, drawn, cosine, config) - x_T).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05, errors


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_what_was_inverted_is_drawn_again(zero_terminal_snr: bool) -> None:
    schedule = noise_schedule(ScheduleConfig("cosine", zero_terminal_snr=zero_terminal_snr))
    denoise = gaussian_denoiser(schedule, "v_prediction")
    x_0 = MEAN + STD * torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    errors = []
    for num_steps in (50, 250, 1000):
        config = SamplerConfig("ddim", num_steps, clip_sample_range=None, prediction_type="v_prediction")
        drawn = sample(denoise, invert(denoise, x_0, schedule, config), schedule, config, no_noise)
        errors.append((drawn - x_0).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02, errors


def no_noise(_: int) -> Tensor:
    raise AssertionError("a deterministic sampler asks for no noise")


def test_without_a_terminal_signal_eps_is_refused(silent: NoiseSchedule) -> None:
    config = SamplerConfig("ddim", clip_sample_range=None)
    denoise = gaussian_denoiser(silent, "epsilon")
    with pytest.raises(InputError, match=r"set objective\.prediction_type to v_prediction or sample"):
        sample(denoise, torch.zeros(1, 3), silent, config, no_noise)
    with pytest.raises(InputError, match=r"set objective\.prediction_type to v_prediction or sample"):
        invert(denoise, torch.zeros(1, 3), silent, config)
