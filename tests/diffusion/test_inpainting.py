"""In-painting on a Gaussian whose optimal denoiser, and whose conditional distribution, are known."""

from collections.abc import Callable

import pytest
import torch
from gaussians import optimal
from torch import Tensor

from dalle2_train.diffusion.samplers import Known, Resampling, SamplerConfig, inpaint, sample
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError

# Two pixels: x_0 ~ N(MEAN, COVARIANCE); the first is known to be KNOWN.
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.36], [0.36, 0.4]], dtype=torch.float64)
KNOWN = 1.1
CONDITIONAL_MEAN = float(MEAN[1] + COVARIANCE[0, 1] / COVARIANCE[0, 0] * (KNOWN - MEAN[0]))
CONDITIONAL_VARIANCE = float(COVARIANCE[1, 1] - COVARIANCE[0, 1] ** 2 / COVARIANCE[0, 0])
NUM_DRAWS = 2000
DDPM = SamplerConfig("ddpm", 150, clip_sample_range=None)


def gaussian(schedule: NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    """E[eps | x_t] of pixels side by side, (B, 1, 1, 2)."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        a = schedule.alphas_cumprod[t[0]]
        return optimal(x_t.reshape(-1, 2), a, MEAN, COVARIANCE).eps.reshape(x_t.shape)

    return denoise


def known(count: int) -> Known:
    x_0 = torch.tensor([KNOWN, torch.nan], dtype=torch.float64).reshape(1, 1, 1, 2)
    return Known(
        x_0.expand(count, -1, -1, -1),
        torch.tensor([True, False]).reshape(1, 1, 1, 2).expand(count, -1, -1, -1),
    )


def noises(count: int) -> Callable[[int], Tensor]:
    return lambda i: torch.randn(
        count, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(i)
    )


def draw(schedule: NoiseSchedule, config: SamplerConfig, resampling: Resampling) -> Tensor:
    noise = noises(NUM_DRAWS)
    return inpaint(
        gaussian(schedule), noise(-1), schedule, config, noise, known(NUM_DRAWS), resampling
    ).reshape(-1, 2)


def test_what_is_new_goes_with_what_is_known_the_more_often_it_is_drawn_again(cosine: NoiseSchedule) -> None:
    once = draw(cosine, DDPM, Resampling())[:, 1]
    often = draw(cosine, DDPM, Resampling(8, 20))[:, 1]
    error = (CONDITIONAL_VARIANCE / NUM_DRAWS) ** 0.5
    assert abs(often.mean().item() - CONDITIONAL_MEAN) < 4 * error + 0.01
    assert often.var().item() == pytest.approx(CONDITIONAL_VARIANCE, rel=0.15)
    # Drawn once it was drawn towards the known part, but from too far away.
    assert abs(often.mean() - CONDITIONAL_MEAN) < abs(once.mean() - CONDITIONAL_MEAN) / 2
    assert MEAN[1] + 0.2 < once.mean() < CONDITIONAL_MEAN


@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig("ddpm", 20, clip_sample_range=None),
        SamplerConfig("ddim", 20, clip_sample_range=None),
        SamplerConfig("ddim", 20, 0.5),
        SamplerConfig("dpm_solver", 20, threshold_quantile=0.9),
    ],
    ids=["ddpm", "ddim", "ddim, eta 0.5", "dpm_solver, thresholded"],
)
@pytest.mark.parametrize("resampling", [Resampling(), Resampling(3, 7)], ids=["once", "three times"])
def test_the_known_part_is_exact_at_the_end_and_noised_to_measure_before(
    config: SamplerConfig, resampling: Resampling, cosine: NoiseSchedule
) -> None:
    seen: list[tuple[int, Tensor]] = []
    denoise, noise = gaussian(cosine), noises(500)

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append((int(t[0]), x_t[..., 0].flatten()))
        return denoise(x_t, t)

    out = inpaint(watched, noise(-1), cosine, config, noise, known(500), resampling)
    assert torch.equal(out[..., 0], torch.full_like(out[..., 0], KNOWN))
    assert torch.isfinite(out).all()
    assert len(seen) == resampling.num_calls(config.num_steps)
    for t, values in seen:
        a = cosine.alphas_cumprod[t].item()
        standard = (values - a**0.5 * KNOWN) / (1 - a) ** 0.5
        assert abs(standard.mean().item()) < 5 / 500**0.5 and abs(standard.std().item() - 1) < 0.2


def nothing_known(count: int) -> Known:
    return Known(torch.zeros(count, 1, 1, 2).double(), torch.zeros(count, 1, 1, 2, dtype=torch.bool))


@pytest.mark.parametrize("name", ["dpm_solver", "ddim"])
def test_without_anything_known_it_is_the_sampler_across_stretches(name: str, cosine: NoiseSchedule) -> None:
    """A solver of several steps remembers the one before, which may be of another stretch."""
    noise, config = noises(5), SamplerConfig(name, 25, clip_sample_range=None)  # type: ignore[arg-type]
    ours = inpaint(gaussian(cosine), noise(-1), cosine, config, noise, nothing_known(5))
    assert torch.equal(ours, sample(gaussian(cosine), noise(-1), cosine, config, noise))


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_going_back_raises_the_noise_to_measure(name: str, cosine: NoiseSchedule) -> None:
    """Where x_0 is one point, x_t is √ᾱ x_0 + √(1 - ᾱ) eps exactly, however few the steps, on every visit of t."""
    seen: list[tuple[int, Tensor]] = []
    noise, config = noises(NUM_DRAWS), SamplerConfig(name, 20, clip_sample_range=None)  # type: ignore[arg-type]

    def to_the_point(x_t: Tensor, t: Tensor) -> Tensor:
        a = cosine.alphas_cumprod[t[0]]
        eps = (x_t - a.sqrt() * KNOWN) / (1 - a).sqrt()
        seen.append((int(t[0]), eps.flatten()))
        return eps

    inpaint(to_the_point, noise(-1), cosine, config, noise, nothing_known(NUM_DRAWS), Resampling(3, 7))
    assert len(seen) == 60
    for t, eps in seen:
        assert abs(eps.mean().item()) < 5 / len(eps) ** 0.5, f"at t = {t}"
        assert abs(eps.std().item() - 1) < 5 / (2 * len(eps)) ** 0.5, f"at t = {t}"
    first = [eps for t, eps in seen if t == seen[0][0]]
    again = torch.corrcoef(torch.stack(first))
    assert len(first) == 3 and again.triu(1).abs().max() < 0.9, "it is raised by fresh noise"


def test_after_going_back_a_solver_remembers_nothing_of_the_way_down(cosine: NoiseSchedule) -> None:
    """A stretch that is the whole way, drawn twice, ends as the sampler does that begins where it was raised to."""
    begun: list[Tensor] = []
    noise, config = noises(5), SamplerConfig("dpm_solver", 6, clip_sample_range=None)

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        if t[0] == 999:
            begun.append(x_t)
        return gaussian(cosine)(x_t, t)

    ours = inpaint(watched, noise(-1), cosine, config, noise, nothing_known(5), Resampling(2, 6))
    assert len(begun) == 2
    assert torch.equal(ours, sample(gaussian(cosine), begun[1], cosine, config, noise))


def test_what_cannot_be_is_named(cosine: NoiseSchedule) -> None:
    with pytest.raises(InputError, match="num_times=0"):
        Resampling(0)
    with pytest.raises(InputError, match=r"analytic_dpm .* use ddpm"):
        draw(cosine, SamplerConfig("analytic_dpm"), Resampling())
