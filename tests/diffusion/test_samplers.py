"""The samplers against diffusers' schedulers, and on a Gaussian whose optimal denoiser is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UnCLIPScheduler
from diffusers.schedulers import scheduling_unclip
from torch import Tensor

from dalle2_train.diffusion.samplers import SamplerConfig, invert, sample, threshold, timesteps
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule
from dalle2_train.errors import InputError

Denoise = Callable[[Tensor, Tensor], Tensor]
PRIOR = SamplerConfig(num_steps=25, clip_sample_range=5.0, prediction_type="sample")
DECODER = SamplerConfig(num_steps=25, variance="learned_range")
UPSAMPLER = SamplerConfig(num_steps=7)
USES = {"prior": (PRIOR, (3, 10)), "decoder": (DECODER, (2, 3, 4, 4)), "upsampler": (UPSAMPLER, (2, 3, 4, 4))}


def some_denoiser(shape: tuple[int, ...], learned: bool, dtype: torch.dtype) -> Denoise:
    """A smooth function of x and t that is sometimes clipped and sometimes not."""
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(shape[1], shape[1] * (1 + learned), generator=generator, dtype=torch.float64).to(
        dtype
    )

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        phase = (t.to(dtype) / 300).reshape(-1, *(1,) * (x_t.ndim - 1))
        return torch.einsum("bc...,cd->bd...", torch.sin(x_t + phase), weight)

    return denoise


def run_theirs(
    scheduler: UnCLIPScheduler, denoise: Denoise, x: Tensor, num_steps: int, noises: list[Tensor], monkeypatch
) -> Tensor:
    """The loop of UnCLIPPipeline, with the noise we choose."""
    queue = iter(noises)
    monkeypatch.setattr(scheduling_unclip, "randn_tensor", lambda *_, **__: next(queue))
    scheduler.set_timesteps(num_steps)
    for i, t in enumerate(scheduler.timesteps):
        before = None if i + 1 == num_steps else scheduler.timesteps[i + 1]
        prediction = denoise(x, t.expand(len(x)))
        x = scheduler.step(prediction, t, x, prev_timestep=before).prev_sample
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("use", list(USES))
def test_ddpm_equals_unclip_scheduler(
    use: str,
    dtype: torch.dtype,
    cosine: NoiseSchedule,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, shape = USES[use]
    learned = config.variance == "learned_range"
    denoise = some_denoiser(shape, learned, dtype)
    x_T, *noises = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(config.num_steps))
    theirs = UnCLIPScheduler(
        variance_type=config.variance,
        clip_sample_range=config.clip_sample_range,
        prediction_type=config.prediction_type,
    )
    if dtype == torch.float64:
        # diffusers keeps its tables in float32, a thousand products deep: its own error, taken away here.
        theirs.betas, theirs.alphas, theirs.one = cosine.betas, 1 - cosine.betas, torch.ones((), dtype=dtype)
        theirs.alphas_cumprod = cosine.alphas_cumprod
    expected = run_theirs(theirs, denoise, x_T, config.num_steps, noises, monkeypatch)
    ours = sample(denoise, x_T, cosine, config, lambda i: noises[i])
    assert ours.dtype == dtype and expected.std() > 0.1
    bound = 1e-9 if dtype == torch.float64 else 1e-4
    assert (ours - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("num_steps", [2, 7, 25, 250, 999, 1000])
def test_timesteps_equal_unclip_scheduler(num_steps: int) -> None:
    theirs = UnCLIPScheduler()
    theirs.set_timesteps(num_steps)
    assert timesteps(1000, num_steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_ddim_equals_ddim_scheduler(eta: float, prediction_type: str, generator: torch.Generator) -> None:
    num_steps, shape = 40, (2, 3, 4, 4)
    schedule = noise_schedule(ScheduleConfig("cosine", num_steps))
    theirs = DDIMScheduler(num_steps, prediction_type=prediction_type, clip_sample_range=1.5)
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = schedule.alphas_cumprod, torch.tensor(1.0).double()
    theirs.set_timesteps(num_steps)
    denoise = some_denoiser(shape, False, torch.float64)
    x_T, *noises = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(num_steps + 1)
    )
    x = x_T
    for i, t in enumerate(theirs.timesteps):
        prediction = denoise(x, t.expand(len(x)))
        # diffusers keeps the unclipped eps unless told otherwise; with the clipped one the step is consistent.
        step = theirs.step(prediction, t, x, eta=eta, use_clipped_model_output=True, variance_noise=noises[i])
        x = step.prev_sample
    config = SamplerConfig("ddim", num_steps, eta, clip_sample_range=1.5, prediction_type=prediction_type)
    ours = sample(denoise, x_T, schedule, config, lambda i: noises[i])
    # eta's noise at the last step has no variance, so it is no matter that diffusers draws it.
    assert (ours - x).abs().max() <= 1e-9 * x.abs().max()


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # diffusers', of its own tables
@pytest.mark.parametrize("num_steps", [1, 2, 3, 20])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
def test_dpm_solver_equals_multistep_scheduler(
    num_steps: int, prediction_type: str, cosine: NoiseSchedule, generator: torch.Generator
) -> None:
    shape = (2, 3, 4, 4)
    theirs = DPMSolverMultistepScheduler(prediction_type=prediction_type, final_sigmas_type="zero")
    theirs.set_timesteps(timesteps=timesteps(1000, num_steps))
    a = cosine.alphas_cumprod[theirs.timesteps]
    theirs.sigmas = torch.cat([((1 - a) / a).sqrt(), torch.zeros(1, dtype=torch.float64)])
    denoise = some_denoiser(shape, False, torch.float64)
    x = x_T = torch.randn(shape, generator=generator, dtype=torch.float64)
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(len(x))), t, x).prev_sample
    config = SamplerConfig("dpm_solver", num_steps, clip_sample_range=None, prediction_type=prediction_type)
    ours = sample(denoise, x_T, cosine, config, no_noise)
    # diffusers rounds x to float32 at every step.
    assert (ours - x).abs().max() <= 1e-5 * x.abs().max()


def no_noise(_: int) -> Tensor:
    raise AssertionError("a deterministic sampler asks for no noise")


def test_dynamic_thresholding_scales_what_exceeds_the_range(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 0.2]).view(
        2, 1, 1, 1
    )
    ours = threshold(x, SamplerConfig(threshold_quantile=0.9))
    reached = np.quantile(np.abs(x[0].numpy()), 0.9)
    np.testing.assert_allclose(
        ours[0].numpy(), np.clip(x[0].numpy(), -reached, reached) / reached, rtol=1e-12
    )
    # Nine tenths of the second lie well inside the range: its few outliers are clamped, its contrast stays.
    np.testing.assert_array_equal(ours[1].numpy(), np.clip(x[1].numpy(), -1, 1))


def test_inversion_finds_the_noise_as_steps_grow(cosine: NoiseSchedule) -> None:
    x_T = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    errors = []
    for num_steps in (50, 250, 1000):
        config = SamplerConfig("ddim", num_steps, clip_sample_range=None)
        denoise = gaussian_denoiser(cosine, num_steps, False)
        drawn = sample(denoise, x_T, cosine, config, no_noise)
        errors.append((invert(denoise, drawn, cosine, config) - x_T).abs().max().item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02, errors


def test_what_cannot_be_inverted_is_refused(cosine: NoiseSchedule) -> None:
    for config in (
        SamplerConfig("ddim"),
        SamplerConfig("ddim", eta=0.1, clip_sample_range=None),
        SamplerConfig(),
    ):
        with pytest.raises(InputError, match="clip_sample_range null"):
            invert(lambda x_t, t: x_t, torch.ones(1, 3), cosine, config)


MEAN, STD = 0.7, 0.4


def gaussian_denoiser(schedule: NoiseSchedule, num_steps: int, learned: bool) -> Denoise:
    """E[eps | x_t] of x_0 ~ N(MEAN, STD²), and, if `learned`, the exact variance of each reverse step."""
    chosen = timesteps(schedule.num_steps, num_steps)
    before_of = dict(zip(chosen, [*chosen[1:], None], strict=True))

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        a = schedule.alphas_cumprod[t[0]].item()
        variance = a * STD**2 + 1 - a
        eps = math.sqrt(1 - a) / variance * (x_t - math.sqrt(a) * MEAN)
        if not learned:
            return eps
        before = before_of[t[0].item()]
        a_before = 1.0 if before is None else schedule.alphas_cumprod[before].item()
        alpha = a / a_before
        marginal = a_before * STD**2 + 1 - a_before
        exact = marginal * (1 - alpha) / variance
        low, high = max((1 - alpha) * (1 - a_before) / (1 - a), 1e-20), 1 - alpha
        fraction = 2 * math.log(exact / low) / math.log(high / low) - 1
        return torch.cat([eps, torch.full_like(eps, fraction)], dim=1)

    return denoise


def mean_and_variance(
    denoise: Denoise, schedule: NoiseSchedule, config: SamplerConfig
) -> tuple[float, float]:
    """Of what the sampler draws, exactly: with an affine denoiser its output is affine in the noises.

    Row 0 has no noise at all, row k + 1 a unit of the k-th noise alone.
    """
    rows = torch.eye(config.num_steps + 2, dtype=torch.float64)[:, :, None]  # (source, row, 1)
    out = sample(denoise, rows[1], schedule, config, lambda i: rows[i + 2])
    return out[0].item(), (out[1:] - out[0]).square().sum().item()


@pytest.mark.parametrize("num_steps", [10, 50, 1000])
def test_gaussian_with_exact_variances_is_exact_in_any_number_of_steps(
    num_steps: int, cosine: NoiseSchedule
) -> None:
    config = SamplerConfig(num_steps=num_steps, variance="learned_range", clip_sample_range=None)
    mean, variance = mean_and_variance(gaussian_denoiser(cosine, num_steps, True), cosine, config)
    # The last step adds no noise: the variance of x_0 given x at t = 0, 4e-5, is missing.
    assert mean == pytest.approx(MEAN, abs=1e-4)
    assert variance == pytest.approx(STD**2, abs=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig(num_steps=1),
        SamplerConfig("ddim", 1),
        SamplerConfig("ddim", 1, 0.7),
        SamplerConfig("dpm_solver", 1),
    ],
    ids=["ddpm", "ddim", "ddim, eta 0.7", "dpm_solver"],
)
def test_gaussian_is_reached_as_steps_grow(config: SamplerConfig, cosine: NoiseSchedule) -> None:
    errors = []
    for num_steps in (20, 100, 1000):
        config = replace(config, num_steps=num_steps, clip_sample_range=None)
        mean, variance = mean_and_variance(gaussian_denoiser(cosine, num_steps, False), cosine, config)
        errors.append(max(abs(mean - MEAN), abs(variance - STD**2)))
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < 2e-3, errors


def test_noise_is_asked_for_where_it_is_added(cosine: NoiseSchedule) -> None:
    asked: list[int] = []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.zeros(2, 3)

    for config, expected in [
        (SamplerConfig(num_steps=4), [0, 1, 2]),
        (SamplerConfig("ddim", 4), []),
        (SamplerConfig("ddim", 4, eta=1.0), [0, 1, 2]),
        (SamplerConfig(num_steps=1), []),
    ]:
        asked.clear()
        assert sample(lambda x_t, t: x_t, torch.ones(2, 3), cosine, config, noise).isfinite().all()
        assert asked == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps 0"),
        ({"name": "ddim", "variance": "learned_range"}, "learned_range"),
        ({"eta": 0.5}, "eta 0.5"),
        ({"name": "dpm_solver", "eta": 0.5}, "eta 0.5"),
        ({"threshold_quantile": 1.5}, "threshold_quantile 1.5"),
        ({"threshold_quantile": 0.9, "clip_sample_range": None}, "clip_sample_range, which is null"),
        ({"clip_sample_range": 0.0}, "clip_sample_range"),
    ],
)
def test_a_setting_without_effect_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SamplerConfig(**arguments)


def test_more_steps_than_trained_is_refused() -> None:
    with pytest.raises(InputError, match="1001"):
        timesteps(1000, 1001)
