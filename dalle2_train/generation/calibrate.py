"""What Analytic-DPM has to know of a prior, estimated on data and kept in its manifest (Bao et al. 2022).

Legend: N samples, E embedding, T training timesteps, M timesteps at which it is estimated.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.checkpoints.manifest import EpsStatistics
from dalle2_train.diffusion.prediction import to_eps
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.samplers import timesteps
from dalle2_train.diffusion.samplers.analytic_dpm import estimate_x_0_variance
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.prior import Prior


@dataclass(frozen=True)
class CalibrationConfig:
    """How well it is estimated."""

    num_samples: int = 512
    """Pictures with their captions, each seen at every timestep."""
    num_timesteps: int = 100
    """Timesteps, evenly spaced; between them it is interpolated."""
    split: str = "train"
    batch_size: int = 64
    """Samples at a time; bounds memory."""
    seed: int = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 2), ("num_timesteps", 2), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}={getattr(self, name)}: give {least} or more")


@torch.inference_mode()
def calibrate(
    part: Part[Prior],
    image_embed: Tensor,
    text: Text,
    config: CalibrationConfig,
    progress: Callable[[int, int], None] | None = None,
) -> EpsStatistics:
    """The statistics of `part`, unguided, over image embeddings (N, E) and what it is told of their captions (N).

    `progress` hears (timesteps done, all). Errors: InputError for more timesteps than the prior was trained with.
    """
    x_0 = part.network.normalise(image_embed)  # (N, E)
    chosen = timesteps(part.schedule.num_steps, config.num_timesteps)[::-1]
    means = []
    for done, t in enumerate(chosen):
        means.append(_mean_squared_eps(part, x_0, text, t, config))
        if progress is not None:
            progress(done + 1, len(chosen))
    variance = x_0.double().var(dim=0).mean().item()
    return EpsStatistics(tuple(chosen), tuple(means), variance, len(x_0))


def known_x_0_variance(part: Part) -> Tensor:
    """(T,) float64, from the statistics in the part's manifest. Raises InputError where there are none."""
    known = part.manifest.eps_statistics
    if known is None:
        raise InputError(
            f"sampler=analytic_dpm, but this {part.manifest.kind} was not calibrated for it; run `dalle2-train "
            "calibrate` on the prior (and export it again), or set generation.prior.sampler=ddpm"
        )
    steps = np.arange(part.schedule.num_steps)
    mean_squared_eps = np.interp(steps, known.timesteps, known.mean_squared_eps)  # (T,)
    return estimate_x_0_variance(part.schedule, torch.from_numpy(mean_squared_eps), known.data_variance)


def _mean_squared_eps(part: Part[Prior], x_0: Tensor, text: Text, t: int, config: CalibrationConfig) -> float:
    """E[eps(x_t)²] at one timestep. The noise's own mean square is known to be 1: its sampling error is taken off."""
    objective, total = part.objective, 0.0
    for start in range(0, len(x_0), config.batch_size):
        batch = slice(start, start + config.batch_size)
        clean, given = x_0[batch], type(text)(*(feature[batch] for feature in text))
        index = torch.arange(start, start + len(clean))
        eps = seeding.normal(clean.shape[1:], config.seed, "calibrate", t, index).to(clean)
        times = torch.full((len(clean),), t, device=clean.device)
        x_t = add_noise(part.schedule, clean, times, eps)
        prediction = part.network(x_t, times, *given)
        predicted = to_eps(part.schedule, x_t, times, prediction, objective.prediction_type)
        total += (predicted.double().square() - eps.double().square()).mean(dim=1).sum().item()
    return 1 + total / len(x_0)
