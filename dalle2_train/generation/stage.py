"""What the stages share: from a trained part and its section of the config to a sample.

Legend: B prompts.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from dalle2_train.diffusion.prediction import check_predictable
from dalle2_train.diffusion.samplers import Denoise, SamplerConfig, sample
from dalle2_train.diffusion.schedule import NoiseSchedule
from dalle2_train.errors import InputError
from dalle2_train.generation.calibrate import known_x_0_variance
from dalle2_train.generation.config import StageConfig
from dalle2_train.generation.noise import Noise
from dalle2_train.generation.unclip import Part

Tick = Callable[[], None]
"""Called after every denoising step."""

Run = Callable[[Denoise, Tensor, NoiseSchedule, SamplerConfig, Callable[[int], Tensor]], Tensor]
"""(denoise, x_T, schedule, config, noise) → x_0, as `sample` does."""


def check_stage(part: Part, stage: str, config: StageConfig) -> None:
    """Errors: InputError for whatever would stop `run_stage`: what the part's training does not allow."""
    trained = part.schedule_config.num_steps
    if config.num_steps > trained:
        raise InputError(
            f"{stage}.num_steps={config.num_steps}: the {stage} was trained with {trained}; give no more"
        )
    objective = part.objective
    try:
        config.sampler_config(objective.prediction_type, objective.learned_variance)
        check_predictable(objective.prediction_type, part.schedule_config.zero_terminal_snr)
    except InputError as error:
        raise InputError(f"{stage}: {error}") from error
    if config.sampler == "analytic_dpm":
        known_x_0_variance(part)


def run_stage(
    part: Part,
    stage: str,
    denoise: Denoise,
    shape: tuple[int, ...],
    config: StageConfig,
    draws: Noise,
    tick: Tick,
    run: Run | None = None,
) -> Tensor:
    """Samples one stage from its keyed noise, (B, *shape), by `sample` or `run`; B counts all draws of all prompts."""
    weight = next(part.network.parameters())
    like = {"device": weight.device, "dtype": weight.dtype}

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = denoise(x_t, t)
        tick()
        return prediction

    if run is None:
        of_x_0 = known_x_0_variance(part).to(weight.device) if config.sampler == "analytic_dpm" else None
        run = partial(sample, x_0_variance=of_x_0)
    return run(
        counted,
        draws.initial(stage, shape).to(**like),
        part.schedule.to(weight.device),
        config.sampler_config(part.objective.prediction_type, part.objective.learned_variance),
        lambda step: draws.of_step(stage, shape, step).to(**like),
    )
