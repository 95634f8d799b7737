"""The forward process and its posterior against NumPy float64 and Bayes' rule."""

import numpy as np
import torch

from dalle2_train.diffusion.prediction import target, to_eps, to_x_0
from dalle2_train.diffusion.process import add_noise, posterior_mean_variance
from dalle2_train.diffusion.schedule import NoiseSchedule

T = torch.tensor([0, 1, 400, 998, 999])


def draw(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(5, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))


def test_add_noise(schedule: NoiseSchedule, alphas_cumprod: np.ndarray, generator: torch.Generator) -> None:
    x_0, eps = draw(generator)
    a = alphas_cumprod[T][:, None, None, None]
    expected = np.sqrt(a) * x_0.numpy() + np.sqrt(1 - a) * eps.numpy()
    np.testing.assert_allclose(add_noise(schedule, x_0, T, eps), expected, rtol=1e-9, atol=1e-12)


def test_posterior_is_bayes_rule(
    schedule: NoiseSchedule, alphas_cumprod: np.ndarray, generator: torch.Generator
) -> None:
    x_0, eps = draw(generator)
    x_t = add_noise(schedule, x_0, T, eps)
    ours = posterior_mean_variance(schedule, x_0, x_t, T)
    # The prior x_{t-1} ~ N(√ᾱ_{t-1} x_0, 1 - ᾱ_{t-1}) times the likelihood x_t ~ N(√α x_{t-1}, β), by precisions.
    for i, t in enumerate(T.tolist()):
        beta = schedule.betas[t].item()
        if t == 0:
            np.testing.assert_allclose(ours.mean[i], x_0[i], rtol=1e-9)
            assert ours.variance[i].item() == 0
            assert ours.log_variance[i] == ours.log_variance[1]
            continue
        before = alphas_cumprod[t - 1]
        precision = 1 / (1 - before) + (1 - beta) / beta
        weighted = np.sqrt(before) * x_0[i].numpy() / (1 - before) + np.sqrt(1 - beta) * x_t[i].numpy() / beta
        np.testing.assert_allclose(ours.mean[i], weighted / precision, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours.variance[i].item(), 1 / precision, rtol=1e-9)
        np.testing.assert_allclose(ours.log_variance[i].item(), -np.log(precision), rtol=1e-9)


def test_predictions_convert_back(schedule: NoiseSchedule, generator: torch.Generator) -> None:
    x_0, eps = draw(generator)
    x_t = add_noise(schedule, x_0, T, eps)
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        truth = target(schedule, prediction_type, x_0, T, eps)
        # Near T x_0 is all but lost in x_t: what rounding leaves of it is 1e-16 / √ᾱ.
        np.testing.assert_allclose(to_x_0(schedule, x_t, T, truth, prediction_type), x_0, atol=1e-10)
        np.testing.assert_allclose(to_eps(schedule, x_t, T, truth, prediction_type), eps, atol=1e-10)


def test_v_is_the_derivative_along_the_angle(cosine: NoiseSchedule, generator: torch.Generator) -> None:
    x_0, eps = draw(generator)
    angle = torch.atan2((1 - cosine.alphas_cumprod[T]).sqrt(), cosine.alphas_cumprod[T].sqrt())
    angle = angle[:, None, None, None].requires_grad_()
    x_t = angle.cos() * x_0 + angle.sin() * eps
    np.testing.assert_allclose(add_noise(cosine, x_0, T, eps), x_t.detach(), atol=1e-12)
    v = target(cosine, "v_prediction", x_0, T, eps)
    for pixel in range(12):
        (derivative,) = torch.autograd.grad(x_t.flatten(1)[:, pixel].sum(), angle, retain_graph=True)
        np.testing.assert_allclose(v.flatten(1)[:, pixel], derivative.flatten(), atol=1e-12)
