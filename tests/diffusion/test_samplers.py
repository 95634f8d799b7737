"""The samplers against diffusers' schedulers, and what they refuse. On known data: test_gaussian_toy.py."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UnCLIPScheduler
from diffusers.schedulers import scheduling_ddpm, scheduling_unclip
from torch import Tensor

from dalle2_train.diffusion.samplers import Denoise, SamplerConfig, invert, sample, timesteps
from dalle2_train.diffusion.samplers.threshold import threshold
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule
from dalle2_train.errors import InputError

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


class Watched:
    """A denoiser that keeps where it was asked."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.seen: list[tuple[int, Tensor]] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.seen.append((int(t[0]), x_t))
        return self.denoise(x_t, t)


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
        variance_type=config.variance.replace("fixed_small", "fixed_small_log"),
        clip_sample_range=config.clip_sample_range,
        prediction_type=config.prediction_type,
    )
    if dtype == torch.float64:
        # diffusers keeps its tables in float32, a thousand products deep: its own error, taken away here.
        theirs.betas, theirs.alphas, theirs.one = cosine.betas, 1 - cosine.betas, torch.ones((), dtype=dtype)
        theirs.alphas_cumprod = cosine.alphas_cumprod
    their_way, our_way = Watched(denoise), Watched(denoise)
    expected = run_theirs(theirs, their_way, x_T, config.num_steps, noises, monkeypatch)
    ours = sample(our_way, x_T, cosine, config, lambda i: noises[i])
    assert ours.dtype == dtype and expected.std() > 0.1
    bound = 1e-9 if dtype == torch.float64 else 1e-4
    for (t, x), (their_t, their_x) in zip(
        [*our_way.seen, (-1, ours)], [*their_way.seen, (-1, expected)], strict=True
    ):
        assert t == their_t
        assert (x - their_x).abs().max() <= bound * their_x.abs().max(), f"at t = {t}"


@pytest.mark.parametrize("num_steps", [2, 7, 25, 250, 999, 1000])
def test_timesteps_equal_unclip_scheduler(num_steps: int) -> None:
    theirs = UnCLIPScheduler()
    theirs.set_timesteps(num_steps)
    assert timesteps(1000, num_steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("zero_terminal_snr", [False, True])
def test_fixed_variances_equal_ddpm_scheduler(
    variance: str, zero_terminal_snr: bool, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_steps, shape = 40, (2, 3, 4, 4)
    schedule = noise_schedule(ScheduleConfig("cosine", num_steps, zero_terminal_snr))
    theirs = DDPMScheduler(num_steps, variance_type=variance, prediction_type="v_prediction")
    theirs.betas, theirs.alphas, theirs.alphas_cumprod = schedule.betas, 1 - schedule.betas, schedule[1]
    theirs.one = torch.ones((), dtype=torch.float64)
    x_T, *noises = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(num_steps))
    queue = iter(noises)
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(queue))
    theirs.set_timesteps(num_steps)
    denoise, x = some_denoiser(shape, False, torch.float64), x_T
    for t in theirs.timesteps:
        x = theirs.step(denoise(x, t.expand(len(x))), t, x).prev_sample
    config = SamplerConfig(num_steps=num_steps, variance=variance, prediction_type="v_prediction")
    ours = sample(denoise, x_T, schedule, config, lambda i: noises[i])
    assert (ours - x).abs().max() <= 1e-9 * x.abs().max()


def test_ddim_with_eta_1_is_ddpm_with_the_posteriors_variance(
    cosine: NoiseSchedule, generator: torch.Generator
) -> None:
    """Song et al. 2021, after eq. 16; between strided timesteps too."""
    shape = (2, 3, 4, 4)
    x_T, *noises = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(7))
    denoise = some_denoiser(shape, False, torch.float64)
    ddpm, ddim = (
        sample(denoise, x_T, cosine, SamplerConfig(name, 7, eta), lambda i: noises[i])
        for name, eta in (("ddpm", 0.0), ("ddim", 1.0))
    )
    assert (ddpm - ddim).abs().max() <= 1e-9 * ddpm.abs().max()


@pytest.mark.parametrize(
    "config",
    [
        SamplerConfig(num_steps=7, variance="fixed_small", clip_sample_range=None),
        SamplerConfig(num_steps=7, variance="fixed_large", clip_sample_range=None),
        SamplerConfig("ddim", 7, 0.5, clip_sample_range=None),
    ],
    ids=lambda config: f"{config.name}-{config.variance}-{config.eta}",
)
def test_strided_steps_follow_their_equations(
    config: SamplerConfig, cosine: NoiseSchedule, generator: torch.Generator
) -> None:
    """DDPM eq. 7 with the ᾱ of the timesteps that are visited, and DDIM eq. 12 and 16, in NumPy."""
    shape = (2, 3, 4, 4)
    x_T, *noises = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(8))
    denoise, alpha_bar = some_denoiser(shape, False, torch.float64), cosine.alphas_cumprod.numpy()
    visited, x = timesteps(1000, config.num_steps), x_T.numpy()
    for i, (t, before) in enumerate(zip(visited, [*visited[1:], None], strict=True)):
        eps = denoise(torch.from_numpy(x), torch.tensor([t, t])).numpy()
        a, b = alpha_bar[t], 1.0 if before is None else alpha_bar[before]
        x_0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        if config.name == "ddpm":
            beta = 1 - a / b
            mean = np.sqrt(b) * beta / (1 - a) * x_0 + np.sqrt(a / b) * (1 - b) / (1 - a) * x
            variance = beta if config.variance == "fixed_large" else beta * (1 - b) / (1 - a)
        else:
            variance = config.eta**2 * (1 - b) / (1 - a) * (1 - a / b)
            mean = np.sqrt(b) * x_0 + np.sqrt(1 - b - variance) * eps
        x = mean + (0 if before is None else np.sqrt(variance)) * noises[i].numpy()
    ours = sample(denoise, x_T, cosine, config, lambda i: noises[i]).numpy()
    assert np.abs(ours - x).max() <= 1e-9 * np.abs(x).max()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("prediction_type", "zero_terminal_snr"),
    [
        ("epsilon", False),
        ("sample", False),
        ("v_prediction", False),
        ("sample", True),
        ("v_prediction", True),
    ],
)
def test_ddim_equals_ddim_scheduler(
    eta: float, prediction_type: str, zero_terminal_snr: bool, generator: torch.Generator
) -> None:
    if zero_terminal_snr and eta == 1:
        eta = 0.9  # at 1 diffusers takes the root of a variance of -1e-17
    num_steps, shape = 40, (2, 3, 4, 4)
    schedule = noise_schedule(ScheduleConfig("cosine", num_steps, zero_terminal_snr))
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
    ours = threshold(x, 1.0, 0.9)
    reached = np.quantile(np.abs(x[0].numpy()), 0.9)
    np.testing.assert_allclose(
        ours[0].numpy(), np.clip(x[0].numpy(), -reached, reached) / reached, rtol=1e-12
    )
    # Nine tenths of the second lie well inside the range: its few outliers are clamped, its contrast stays.
    np.testing.assert_array_equal(ours[1].numpy(), np.clip(x[1].numpy(), -1, 1))


def test_what_cannot_be_inverted_is_refused(cosine: NoiseSchedule) -> None:
    for config in (
        SamplerConfig("ddim"),
        SamplerConfig("ddim", eta=0.1, clip_sample_range=None),
        SamplerConfig(),
    ):
        with pytest.raises(InputError, match="clip_sample_range null"):
            invert(lambda x_t, t: x_t, torch.ones(1, 3), cosine, config)


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


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_an_eta_that_no_noise_fits_is_told(eta: float) -> None:
    with pytest.raises(InputError, match=f"eta {eta}"):
        SamplerConfig("ddim", eta=eta)
