"""The losses against their closed forms in NumPy float64."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle2_train.diffusion.objective import ObjectiveConfig, check_objective, denoising_loss, weights
from dalle2_train.diffusion.prediction import target, to_eps, to_x_0
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig, noise_schedule
from dalle2_train.errors import InputError

T = torch.tensor([0, 1, 2, 500, 998, 999])
TYPES = ("epsilon", "sample", "v_prediction")


def draw_images(generator: torch.Generator, shape: tuple[int, ...] = (6, 3, 4, 4)) -> Tensor:
    """8-bit images on [-1, 1], black and white among them."""
    levels = torch.randint(0, 256, shape, generator=generator).double()
    levels[:, 0, 0, 0], levels[:, 0, 0, 1] = 0, 255
    return levels / 127.5 - 1


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def numpy_mse(error: Tensor) -> np.ndarray:
    return (error.numpy() ** 2).reshape(len(error), -1).mean(axis=1)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_simple_is_the_mean_square_error(
    schedule: NoiseSchedule, prediction_type: str, generator: torch.Generator
) -> None:
    x_0 = draw_images(generator)
    eps, error = randn_like(x_0, generator), randn_like(x_0, generator)
    truth = target(schedule, prediction_type, x_0, T, eps)
    config = ObjectiveConfig(prediction_type)
    loss = denoising_loss(schedule, config, truth + error, x_0, add_noise(schedule, x_0, T, eps), T, eps)
    np.testing.assert_allclose(loss, numpy_mse(error), rtol=1e-9)


@pytest.mark.parametrize(("prediction_type", "weighting"), list(product(TYPES, ["min_snr", "v"])))
def test_weightings_by_what_the_prediction_implies(
    schedule: NoiseSchedule, prediction_type: str, weighting: str, generator: torch.Generator
) -> None:
    t = T[:-1]  # at 999 the implied x_0 of an eps is lost in rounding
    x_0 = draw_images(generator)[:-1]
    eps, error = randn_like(x_0, generator), randn_like(x_0, generator)
    x_t = add_noise(schedule, x_0, t, eps)
    prediction = target(schedule, prediction_type, x_0, t, eps) + error
    config = ObjectiveConfig(prediction_type, weighting)
    loss = denoising_loss(schedule, config, prediction, x_0, x_t, t, eps)
    implied_x_0 = to_x_0(schedule, x_t, t, prediction, prediction_type)
    implied_eps = to_eps(schedule, x_t, t, prediction, prediction_type)
    a = schedule.alphas_cumprod[t].numpy()
    if weighting == "min_snr":
        expected = np.minimum(a / (1 - a), 5.0) * numpy_mse(implied_x_0 - x_0)
    else:
        v = target(schedule, "v_prediction", x_0, t, eps)
        expected = numpy_mse(target(schedule, "v_prediction", implied_x_0, t, implied_eps) - v)
    np.testing.assert_allclose(loss, expected, rtol=1e-7)


def numpy_bits(
    schedule: NoiseSchedule, x_0: Tensor, x_t: Tensor, t: int, eps: Tensor, fraction: Tensor
) -> float:
    """One term of the bound, pixel by pixel, from the definitions in Nichol & Dhariwal 2021."""
    betas = schedule.betas.numpy()
    a = np.cumprod(1 - betas)
    before = a[t - 1] if t > 0 else 1.0
    s = max(t, 1)  # at t = 0 the lower end is that of t = 1
    posterior = betas[s] * (1 - a[s - 1]) / (1 - a[s])
    upper, lower = math.log(betas[t]), math.log(posterior)
    of_x_0 = math.sqrt(before) * betas[t] / (1 - a[t])
    of_x_t = math.sqrt(1 - betas[t]) * (1 - before) / (1 - a[t])
    total = 0.0
    for x, y, e, f in zip(*(tensor.flatten().tolist() for tensor in (x_0, x_t, eps, fraction)), strict=True):
        guessed = (y - math.sqrt(1 - a[t]) * e) / math.sqrt(a[t])
        mean = of_x_0 * guessed + of_x_t * y
        log_variance = (f + 1) / 2 * upper + (1 - f) / 2 * lower
        std = math.exp(log_variance / 2)
        if t == 0:
            low = 0.0 if x == -1 else 0.5 * math.erfc(-(x - 1 / 255 - mean) / std / math.sqrt(2))
            high = 1.0 if x == 1 else 0.5 * math.erfc(-(x + 1 / 255 - mean) / std / math.sqrt(2))
            total -= math.log(max(high - low, 1e-12))
        else:
            true_mean = of_x_0 * x + of_x_t * y
            total += (log_variance - lower) / 2 - 0.5
            total += (posterior + (true_mean - mean) ** 2) / (2 * std**2)
    return total / x_0.numel() / math.log(2)


def test_hybrid_adds_the_bound(schedule: NoiseSchedule, generator: torch.Generator) -> None:
    x_0 = draw_images(generator)
    eps, error = randn_like(x_0, generator), 0.1 * randn_like(x_0, generator)
    fraction = torch.rand(x_0.shape, generator=generator, dtype=torch.float64) * 2 - 1
    x_t = add_noise(schedule, x_0, T, eps)
    config = ObjectiveConfig(learned_variance=True, vlb_weight=0.001)
    prediction = torch.cat([eps + error, fraction], dim=1)
    loss = denoising_loss(schedule, config, prediction, x_0, x_t, T, eps)
    for i, t in enumerate(T.tolist()):
        bits = numpy_bits(schedule, x_0[i], x_t[i], t, (eps + error)[i], fraction[i])
        np.testing.assert_allclose(loss[i], numpy_mse(error)[i] + 0.001 * 1000 * bits, rtol=1e-8)


def test_the_bound_moves_no_mean(cosine: NoiseSchedule, generator: torch.Generator) -> None:
    x_0 = draw_images(generator)
    eps = randn_like(x_0, generator)
    x_t = add_noise(cosine, x_0, T, eps)
    gradients = []
    for learned in (False, True):
        prediction = (eps + 0.3).requires_grad_()
        fraction = torch.zeros_like(x_0, requires_grad=True)
        given = torch.cat([prediction, fraction], dim=1) if learned else prediction
        config = ObjectiveConfig(learned_variance=learned)
        denoising_loss(cosine, config, given, x_0, x_t, T, eps).sum().backward()
        gradients.append(prediction.grad)
        assert not learned or (fraction.grad is not None and fraction.grad.flatten(1).abs().amax(1).min() > 0)
    assert torch.equal(gradients[0], gradients[1])


def test_the_variance_is_drawn_to_the_true_one(cosine: NoiseSchedule, generator: torch.Generator) -> None:
    """With a perfect mean the bound is least where the variance is the posterior's: its gradient points there."""
    x_0 = draw_images(generator)[3:5]
    eps, t = randn_like(x_0, generator), T[3:5]
    x_t = add_noise(cosine, x_0, t, eps)
    for value, sign in ((-1.0, 0.0), (-0.5, 1.0), (0.5, 1.0), (-1.5, -1.0)):
        fraction = torch.full_like(x_0, value, requires_grad=True)
        config = ObjectiveConfig(learned_variance=True)
        denoising_loss(cosine, config, torch.cat([eps, fraction], 1), x_0, x_t, t, eps).sum().backward()
        assert fraction.grad is not None
        if sign == 0:
            assert fraction.grad.abs().max() < 1e-9
        else:
            assert (fraction.grad.sign() == sign).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighting", ["simple", "min_snr"])
def test_never_nan(
    schedule: NoiseSchedule, dtype: torch.dtype, weighting: str, generator: torch.Generator
) -> None:
    x_0 = draw_images(generator).float()
    eps = randn_like(x_0, generator)
    x_t = add_noise(schedule, x_0, T, eps)
    for size in (0.0, 1.0, 30.0):  # from an untrained network's zeros to a diverging one
        wild = size * torch.randn(6, 6, 4, 4, generator=generator)
        prediction = wild.to(dtype).requires_grad_()
        config = ObjectiveConfig(weighting=weighting, learned_variance=True)
        loss = denoising_loss(schedule, config, prediction, x_0, x_t, T, eps)
        loss.sum().backward()
        assert loss.dtype == torch.float32 and loss.shape == (6,) and loss.isfinite().all()
        assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_embeddings_have_losses_too(cosine: NoiseSchedule, generator: torch.Generator) -> None:
    x_0 = torch.randn(6, 10, generator=generator)
    eps = torch.randn(6, 10, generator=generator)
    config = ObjectiveConfig("sample")
    loss = denoising_loss(cosine, config, x_0 + 2, x_0, add_noise(cosine, x_0, T, eps), T, eps)
    np.testing.assert_allclose(loss, 4.0, rtol=1e-5)


def test_max_weight_caps_the_weight_on_the_predictions_own_error(
    schedule: NoiseSchedule, generator: torch.Generator
) -> None:
    x_0 = draw_images(generator)
    eps, error = randn_like(x_0, generator), randn_like(x_0, generator)
    config = ObjectiveConfig("sample", "v", max_weight=5.0)
    x_t = add_noise(schedule, x_0, T, eps)
    loss = denoising_loss(schedule, config, x_0 + error, x_0, x_t, T, eps)
    a = schedule.alphas_cumprod[T].numpy()
    np.testing.assert_allclose(loss, np.minimum(a / (1 - a) + 1, 5.0) * numpy_mse(error), rtol=1e-9)


def test_leaving_the_variances_range_costs_its_square(
    cosine: NoiseSchedule, generator: torch.Generator
) -> None:
    x_0 = draw_images(generator)
    eps, fraction = randn_like(x_0, generator), 2 * randn_like(x_0, generator)
    x_t = add_noise(cosine, x_0, T, eps)
    prediction = torch.cat([eps, fraction], dim=1)
    free, kept = (
        denoising_loss(cosine, config, prediction, x_0, x_t, T, eps)
        for config in (
            ObjectiveConfig(learned_variance=True),
            ObjectiveConfig(learned_variance=True, variance_range_weight=0.5),
        )
    )
    outside = np.maximum(np.abs(fraction.numpy()) - 1, 0) ** 2
    np.testing.assert_allclose(kept - free, 0.5 * outside.reshape(len(T), -1).mean(axis=1), rtol=1e-6)


def test_a_bad_number_is_named() -> None:
    with pytest.raises(InputError, match="max_weight -1"):
        ObjectiveConfig(max_weight=-1.0)
    with pytest.raises(InputError, match="min_snr_gamma 0"):
        ObjectiveConfig(min_snr_gamma=0)
    for shift in (0.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=f"timestep_shift {shift} must be positive and finite"):
            ObjectiveConfig(timestep_shift=shift)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighting", ["simple", "min_snr", "v"])
def test_never_nan_where_nothing_varies_and_no_signal_is_left(dtype: torch.dtype, weighting: str) -> None:
    """One grey picture, no noise, the least variance, a perfect prediction or one of zeros; ᾱ is 0 at T - 1."""
    schedule = noise_schedule(ScheduleConfig("cosine", zero_terminal_snr=True))
    x_0, eps = torch.full((6, 3, 4, 4), 0.5, dtype=dtype), torch.zeros(6, 3, 4, 4, dtype=dtype)
    x_t = add_noise(schedule, x_0, T, eps)
    config = ObjectiveConfig("v_prediction", weighting, learned_variance=True)
    for mean in (target(schedule, "v_prediction", x_0, T, eps), torch.zeros_like(x_0)):
        for fraction in (-1.0, 0.0, 1.0):
            prediction = torch.cat([mean, torch.full_like(mean, fraction)], dim=1).requires_grad_()
            loss = denoising_loss(schedule, config, prediction, x_0, x_t, T, eps)
            loss.sum().backward()
            assert loss.dtype == torch.float32 and loss.isfinite().all()
            assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_a_weighting_that_leaves_noise_alone_out_is_refused() -> None:
    """Every sampler begins at the last timestep, which min_snr would weigh by its SNR of 0."""
    schedule = noise_schedule(ScheduleConfig("cosine", zero_terminal_snr=True))
    for weighting in ("simple", "v", "min_snr"):
        config = ObjectiveConfig("v_prediction", weighting)
        if weights(schedule, config)[-1] == 0:
            with pytest.raises(InputError, match=r"objective\.weighting is min_snr"):
                check_objective(config, zero_terminal_snr=True)
            check_objective(config, zero_terminal_snr=False)
        else:
            assert weighting != "min_snr"
            check_objective(config, zero_terminal_snr=True)
