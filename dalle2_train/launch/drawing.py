"""A model in training samples with its recipe's steps and guidance; the noise is keyed by the seed.

Legend: B pictures.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.diffusion.guidance import guide
from dalle2_train.diffusion.samplers import SamplerConfig, sample
from dalle2_train.encoders.captions import Text
from dalle2_train.launch.job import TrainJob
from dalle2_train.training.denoising import DenoisingModule


def draw_samples(
    job: TrainJob,
    module: DenoisingModule,
    shape: tuple[int, ...],
    clip_range: float,
    denoise: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`shape` (B, ...), sampled with the recipe's number of steps; the same noise at every step of the training."""
    index, seed, device = torch.arange(shape[0]), job.recipe.training.seed, module.device

    def noise(step: int) -> Tensor:
        return seeding.normal(shape[1:], seed, "sampling", step, index, module.weights_dtype).to(device)

    config = SamplerConfig(
        num_steps=job.recipe.sampling.num_steps,
        variance="learned_range" if module.objective.learned_variance else "fixed_small",
        clip_sample_range=clip_range,
        prediction_type=module.objective.prediction_type,
    )
    return sample(denoise, noise(0), module.schedule.to(device), config, lambda step: noise(step + 1))


def guided(
    predict: Callable[[Tensor, Tensor, bool], Tensor], scale: float, num_guided: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """(x_t, t) → classifier-free guidance of predict(x_t, t, has_condition); num_guided: channels, None for all."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        conditional = predict(x_t, t, True)
        if scale == 1:
            return conditional
        return guide(conditional, predict(x_t, t, False), scale, num_guided)

    return denoise


def repeated(text: Text, count: int) -> Text:
    """One caption's parts, (1, ...), as those of B = count captions."""
    return type(text)(*(part.expand(count, *part.shape[1:]) for part in text))


def like(text: Text, x: Tensor) -> Text:
    """On the device of x; what is no mask or token in its dtype too."""
    return type(text)(*(part.to(x) if part.is_floating_point() else part.to(x.device) for part in text))
