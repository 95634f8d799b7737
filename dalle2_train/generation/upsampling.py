"""Picture → larger picture.

Legend: B prompts, h w and H W the small and the large size.
"""

from torch import Tensor

from dalle2_train.diffusion.samplers import timesteps
from dalle2_train.generation.config import UpsamplerStageConfig
from dalle2_train.generation.noise import Noise
from dalle2_train.generation.stage import Run, Tick, run_stage
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.upsampler import Upsampler, enlarge


def run_upsampler(
    part: Part[Upsampler],
    stage: str,
    image: Tensor,
    draws: Noise,
    config: UpsamplerStageConfig,
    tick: Tick,
    run: Run | None = None,
) -> Tensor:
    """Small pictures (B, 3, h, w) → large ones (B, 3, H, W), both in [-1, 1]; `stage` names the noise."""
    size = part.network.config.high_size
    last_t = timesteps(part.schedule_config.num_steps, config.num_steps)[-1]
    low_res_image = enlarge(image, size)  # (B, 3, H, W)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        of_last = part.last if int(t[0]) == last_t else None
        return (of_last or part.network)(x_t, t, low_res_image)

    return run_stage(part, stage, denoise, (3, size, size), config, draws, tick, run).clamp(-1, 1)
