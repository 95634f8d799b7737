"""What a network predicts, and how one prediction becomes another.

With a = √ᾱ_t and s = √(1 - ᾱ_t): x_t = a x_0 + s eps, and v = a eps - s x_0 (Salimans & Ho 2022).
B batch; x any shape (B, …).
"""

from typing import Literal

from torch import Tensor

from dalle2_train.diffusion.process import signal_and_noise
from dalle2_train.diffusion.schedule import NoiseSchedule

PredictionType = Literal["epsilon", "sample", "v_prediction"]


def target(
    schedule: NoiseSchedule, prediction_type: PredictionType, x_0: Tensor, t: Tensor, eps: Tensor
) -> Tensor:
    """What the network should have predicted (B, …) for `x_0` noised by `eps` at `t` (B,)."""
    if prediction_type == "epsilon":
        return eps
    if prediction_type == "sample":
        return x_0
    a, s = signal_and_noise(schedule, t, x_0)
    return a * eps - s * x_0


def to_x_0(
    schedule: NoiseSchedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The clean x_0 (B, …) that a prediction at (`x_t`, `t`) implies."""
    if prediction_type == "sample":
        return prediction
    a, s = signal_and_noise(schedule, t, x_t)
    if prediction_type == "epsilon":
        return (x_t - s * prediction) / a
    return a * x_t - s * prediction


def to_eps(
    schedule: NoiseSchedule, x_t: Tensor, t: Tensor, prediction: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The noise eps (B, …) that a prediction at (`x_t`, `t`) implies."""
    if prediction_type == "epsilon":
        return prediction
    a, s = signal_and_noise(schedule, t, x_t)
    if prediction_type == "sample":
        return (x_t - a * prediction) / s
    return s * x_t + a * prediction
