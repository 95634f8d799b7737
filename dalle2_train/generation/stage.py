"""What the stages share: from a trained part and its section of the config to a sample.

Legend: B prompts.
"""

from collections.abc import Callable

from torch import Tensor

from dalle2_train.diffusion.samplers import SamplerConfig, sample
from dalle2_train.generation.config import StageConfig
from dalle2_train.generation.load import Part
from dalle2_train.generation.noise import Draws

Denoise = Callable[[Tensor, Tensor], Tensor]

Tick = Callable[[], None]
"""Called after every denoising step."""


def run_stage(
    part: Part,
    stage: str,
    denoise: Denoise,
    shape: tuple[int, ...],
    config: StageConfig,
    draws: Draws,
    tick: Tick,
) -> Tensor:
    """Samples one stage from its keyed noise, (B, *shape)."""
    weight = next(part.network.parameters())
    like = {"device": weight.device, "dtype": weight.dtype}

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = denoise(x_t, t)
        tick()
        return prediction

    return sample(
        counted,
        draws.initial(stage, shape).to(**like),
        part.schedule.to(weight.device),
        sampler_config(part, config),
        lambda step: draws.of_step(stage, shape, step).to(**like),
    )


def sampler_config(part: Part, config: StageConfig) -> SamplerConfig:
    """How a part is sampled: what was asked for, and what its training fixed."""
    # Only ddpm has a use for a learned variance: ddim's noise is eta's, dpm_solver has none.
    learned = part.objective.learned_variance and config.sampler == "ddpm"
    return SamplerConfig(
        name=config.sampler,
        num_steps=config.num_steps,
        eta=config.eta,
        variance="learned_range" if learned else "fixed_small_log",
        clip_sample_range=config.clip_sample_range,
        threshold_quantile=config.threshold_quantile,
        prediction_type=part.objective.prediction_type,
    )
