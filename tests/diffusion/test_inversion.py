"""DDIM inversion on a Gaussian whose optimal denoiser is known, in float64."""

import pytest
import torch
from gaussians import optimal
from torch import Tensor

from dalle2_train.diffusion.samplers import Denoise, SamplerConfig, invert, sample
from dalle2_train.diffusion.schedule import NoiseSchedule

MEAN = torch.tensor([0.7], dtype=torch.float64)
VARIANCE = torch.tensor([[0.16]], dtype=torch.float64)
PICTURE = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]


def gaussian(schedule: NoiseSchedule) -> Denoise:
    """E[eps | x_t] of x_0 ~ N(MEAN, VARIANCE)."""
    return lambda x_t, t: optimal(x_t, schedule.alphas_cumprod[t[0]], MEAN, VARIANCE).eps


def error_of(schedule: NoiseSchedule, num_steps: int, num_refinements: int) -> float:
    config = SamplerConfig("ddim", num_steps, clip_sample_range=None)
    x_T = invert(gaussian(schedule), PICTURE, schedule, config, num_refinements)
    drawn = sample(gaussian(schedule), x_T, schedule, config, lambda _: torch.zeros(()))
    return float((drawn - PICTURE).abs().max())


def test_more_steps_are_nearer(cosine: NoiseSchedule) -> None:
    errors = [error_of(cosine, num_steps, 0) for num_steps in (50, 250, 1000)]
    assert errors[0] > 4 * errors[1] > 12 * errors[2], errors


def test_refined_inversion_of_a_gaussian_is_exact(cosine: NoiseSchedule) -> None:
    plain, once, twice = (error_of(cosine, 250, num_refinements) for num_refinements in (0, 1, 2))
    assert plain > 20 * once > 100 * twice, (plain, once, twice)
    assert twice < 1e-4 and once < 1e-3  # of a range of 2: 86 and 66 dB


@pytest.mark.parametrize("num_refinements", [0, 2])
def test_each_refinement_costs_a_forward_a_step(cosine: NoiseSchedule, num_refinements: int) -> None:
    seen: list[int] = []

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return gaussian(cosine)(x_t, t)

    config = SamplerConfig("ddim", 4, clip_sample_range=None)
    invert(counted, PICTURE, cosine, config, num_refinements)
    plain = {0: [0, 333, 666], 2: [0] * 3 + [333] * 3 + [666] * 3 + [999] * 2}
    assert seen == plain[num_refinements]
