"""From noise to a sample, step by step, with any denoiser: one sampler a file, and the loop that they share."""

from dalle2_train.diffusion.samplers.config import SamplerConfig, SamplerName, VarianceName
from dalle2_train.diffusion.samplers.inpainting import Known, Resampling, inpaint
from dalle2_train.diffusion.samplers.inversion import invert
from dalle2_train.diffusion.samplers.loop import sample
from dalle2_train.diffusion.samplers.steps import Denoise, timesteps

__all__ = [
    "Denoise",
    "Known",
    "Resampling",
    "SamplerConfig",
    "SamplerName",
    "VarianceName",
    "inpaint",
    "invert",
    "sample",
    "timesteps",
]
