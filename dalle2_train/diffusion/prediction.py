"""What a network predicts, and how one prediction becomes another.

With a = √ᾱ_t and s = √(1 - ᾱ_t): x_t = a x_0 + s eps, and v = a eps - s x_0 (Salimans & Ho 2022).
B batch; x any shape (B, …).
"""

from typing import Literal

from torch import Tensor

from dalle2_train.diffusion.process import signal_and_noise
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError

PredictionType = Literal["epsilon", "sample", "v_prediction"]


def check_predictable(prediction_type: PredictionType, zero_terminal_snr: bool) -> None:
    """Raises InputError where the last x_t is noise alone and eps is predicted: then eps is x_t, and x_0 unknown."""
    if prediction_type == "epsilon" and zero_terminal_snr:
        raise InputError(
            "prediction_type is epsilon, but schedule.zero_terminal_snr is true: at its last timestep eps tells no "
            "x_0; set objective.prediction_type to v_prediction or sample, or zero_terminal_snr to false"
        )


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
