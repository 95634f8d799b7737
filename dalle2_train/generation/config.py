"""How each stage of an unCLIP is sampled: one frozen section per stage."""

from dataclasses import dataclass, field
from typing import Literal

from dalle2_train.errors import InputError

# Coordinates of the prior's embedding have unit variance: 5 cuts what lies far out. Pictures are in [-1, 1].
PRIOR_CLIP_RANGE, IMAGE_CLIP_RANGE = 5.0, 1.0

SamplerName = Literal["ddpm", "ddim", "dpm_solver"]


@dataclass(frozen=True)
class StageConfig:
    """What every stage's sampling has."""

    sampler: SamplerName = "ddpm"
    """ddpm draws noise at every step; ddim with eta 0 and dpm_solver (DPM-Solver++, 2M) draw none."""
    num_steps: int = 25
    """Denoising steps, each one forward of the network."""
    eta: float = 0.0
    """ddim only: 0 deterministic, 1 about as noisy as ddpm."""
    clip_sample_range: float | None = IMAGE_CLIP_RANGE
    """Every predicted x_0 is brought within ± this; null: not at all."""
    threshold_quantile: float | None = None
    """Dynamic thresholding (Saharia et al. 2022): where this share of a sample's |x_0| exceeds clip_sample_range, x_0
    is clamped there instead and scaled back into the range. null: x_0 is clamped to the range."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"num_steps={self.num_steps}: sampling needs at least 1 step")
        if self.eta < 0:
            raise InputError(f"eta={self.eta} is negative; give 0 or more")
        if self.eta != 0 and self.sampler != "ddim":
            raise InputError(f"eta={self.eta} is ddim's; set sampler=ddim, or leave eta 0 for {self.sampler}")
        if self.clip_sample_range is not None and self.clip_sample_range <= 0:
            raise InputError(f"clip_sample_range={self.clip_sample_range}: give more than 0, or null")
        if self.threshold_quantile is not None:
            self._check_threshold(self.threshold_quantile)

    def _check_threshold(self, quantile: float) -> None:
        if not 0 < quantile <= 1:
            raise InputError(f"threshold_quantile={quantile}: give more than 0 and at most 1, or null")
        if self.clip_sample_range is None:
            raise InputError(
                f"threshold_quantile={quantile} scales into clip_sample_range, which is null: set it"
            )


@dataclass(frozen=True)
class GuidedStageConfig(StageConfig):
    """A stage with classifier-free guidance."""

    guidance_scale: float = 4.0
    """1: none, one forward a step instead of two; more: closer to the text, less varied."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_scale < 0:
            raise InputError(f"guidance_scale={self.guidance_scale} is negative; give 0 or more")


@dataclass(frozen=True)
class PriorStageConfig(GuidedStageConfig):
    """Text → image embedding."""

    clip_sample_range: float | None = PRIOR_CLIP_RANGE


@dataclass(frozen=True)
class DecoderStageConfig(GuidedStageConfig):
    """Image embedding → small picture."""


@dataclass(frozen=True)
class UpsamplerStageConfig(StageConfig):
    """Picture → larger picture."""

    num_steps: int = 7


@dataclass(frozen=True)
class GenerationConfig:
    """How pictures are sampled. The defaults are Karlo's. A section whose stage a model lacks has no effect."""

    prior: PriorStageConfig = field(default_factory=PriorStageConfig)
    decoder: DecoderStageConfig = field(default_factory=DecoderStageConfig)
    upsampler: UpsamplerStageConfig = field(default_factory=UpsamplerStageConfig)
    second_upsampler: UpsamplerStageConfig = field(default_factory=UpsamplerStageConfig)
    batch_size: int = 32
    """Prompts sampled at once; bounds memory and changes no picture."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: give at least 1")
