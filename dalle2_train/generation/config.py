"""How each stage of an unCLIP is sampled: one frozen section per stage."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

from dalle2_train.diffusion.prediction import PredictionType
from dalle2_train.diffusion.samplers import SamplerConfig, SamplerName, VarianceName
from dalle2_train.errors import InputError

# Coordinates of the prior's embedding have unit variance: 5 cuts what lies far out. Pictures are in [-1, 1].
PRIOR_CLIP_RANGE, IMAGE_CLIP_RANGE = 5.0, 1.0

PRIORS = ("prior", "ar_prior")
"""Kinds of which an unCLIP has one: it diffuses the image embedding, or predicts its codes one by one. Each has its
section."""


@dataclass(frozen=True)
class StageConfig:
    """What every stage's sampling has."""

    sampler: SamplerName = "ddpm"
    """ddpm and analytic_dpm draw noise at every step; ddim with eta 0 and dpm_solver (DPM-Solver++, 2M) draw none."""
    num_steps: int = 25
    """Denoising steps, each one forward of the network."""
    eta: float = 0.0
    """ddim only: 0 deterministic, 1 about as noisy as ddpm."""
    variance: VarianceName | None = None
    """ddpm only: fixed_small (the posterior's), fixed_large (beta) or learned_range. null: what was learned, or
    fixed_small where none was."""
    clip_sample_range: float | None = IMAGE_CLIP_RANGE
    """Every predicted x_0 is brought within ± this; null: not at all."""
    threshold_quantile: float | None = None
    """Dynamic thresholding (Saharia et al. 2022): where this share of a sample's |x_0| exceeds clip_sample_range, x_0
    is clamped there instead and scaled back into the range. null: x_0 is clamped to the range."""

    def __post_init__(self) -> None:
        self.sampler_config("epsilon", learned_variance=True)

    def sampler_config(self, prediction_type: PredictionType, learned_variance: bool) -> SamplerConfig:
        """What was asked for, of a part whose training fixed the rest. Raises InputError where they contradict."""
        if self.variance == "learned_range" and not learned_variance:
            raise InputError(
                "variance=learned_range, but the model has learned none; set fixed_small or fixed_large"
            )
        # Only ddpm has a use for it.
        trained = "learned_range" if learned_variance and self.sampler == "ddpm" else "fixed_small"
        return SamplerConfig(
            name=self.sampler,
            num_steps=self.num_steps,
            eta=self.eta,
            variance=self.variance or trained,
            clip_sample_range=self.clip_sample_range,
            threshold_quantile=self.threshold_quantile,
            prediction_type=prediction_type,
        )


@dataclass(frozen=True)
class GuidedStageConfig(StageConfig):
    """A stage with classifier-free guidance."""

    guidance_scale: float = 4.0
    """1: none; else a step's forward is of twice the batch. More: closer to the text, less varied."""
    guidance_rescale: float = 0.0
    """0 … 1: how far guided predictions are scaled back to the unguided ones' standard deviation (Lin et al. 2023)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.guidance_scale < 0:
            raise InputError(f"guidance_scale={self.guidance_scale} is negative; give 0 or more")
        if not 0 <= self.guidance_rescale <= 1:
            raise InputError(f"guidance_rescale={self.guidance_rescale}: give 0 to 1")
        if self.guidance_rescale > 0 and self.guidance_scale == 1:
            raise InputError(
                f"guidance_rescale={self.guidance_rescale} takes guidance back, but guidance_scale=1 is none; "
                "set guidance_scale, or leave it 0"
            )


@dataclass(frozen=True)
class PriorStageConfig(GuidedStageConfig):
    """Text → image embedding."""

    clip_sample_range: float | None = PRIOR_CLIP_RANGE
    num_draws: int = 1
    """Embeddings drawn for each prompt at once; the one with the highest dot product with the text's is kept (the
    paper draws 2). The first is drawn from the noise that it has when it is alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_draws < 1:
            raise InputError(f"num_draws={self.num_draws}: give at least 1")


@dataclass(frozen=True)
class ArPriorStageConfig:
    """Text → image embedding by an autoregressive prior: one code after another, one forward each."""

    temperature: float = 1.0
    """Less: likelier codes, less variety; 0: always the likeliest."""
    top_p: float = 1.0
    """Codes are drawn from the likeliest ones that have this share of the probability; 1: from all."""
    guidance_scale: float = 1.0
    """Of the codes' logits; 1: none, half the work; more: closer to the text, less varied."""

    def __post_init__(self) -> None:
        for name in ("temperature", "guidance_scale"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)} is negative; give 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: give more than 0 and at most 1")
        if self.temperature == 0 and self.top_p < 1:
            raise InputError(
                f"top_p={self.top_p}: with temperature=0 the likeliest code is taken, whatever top_p; leave it 1"
            )


@dataclass(frozen=True)
class DecoderStageConfig(GuidedStageConfig):
    """Image embedding → small picture."""

    guidance_scale: float = 8.0
    image_embed: Literal["prior", "text", "none"] = "prior"
    """What is read as the image embedding, for every caption. prior: what the prior predicts. text: the caption's own
    text embedding, at the length of an image embedding (the paper's zero-shot ablation, §5.1). none: the learned null,
    for a decoder that was trained on text alone. But for prior, the prior is not run and may be left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_analytic_dpm(self.sampler)


@dataclass(frozen=True)
class UpsamplerStageConfig(StageConfig):
    """Picture → larger picture."""

    num_steps: int = 7

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_analytic_dpm(self.sampler)


@dataclass(frozen=True)
class GenerationConfig:
    """How pictures are sampled. The defaults are Karlo's. A section whose stage a model lacks has no effect: what a
    user sets there is refused (`settings.settled`)."""

    prior: PriorStageConfig = field(default_factory=PriorStageConfig)
    """Of a diffusion prior; what is set here is refused where the prior is autoregressive."""
    decoder: DecoderStageConfig = field(default_factory=DecoderStageConfig)
    upsampler: UpsamplerStageConfig = field(default_factory=UpsamplerStageConfig)
    second_upsampler: UpsamplerStageConfig = field(default_factory=UpsamplerStageConfig)
    ar_prior: ArPriorStageConfig = field(default_factory=ArPriorStageConfig)
    """Of an autoregressive prior; what is set here is refused where the prior is a diffusion."""
    batch_size: int = 32
    """Prompts sampled at once; bounds memory and changes no picture."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: give at least 1")


def check_prior_sections(kind: str, given: Container[str]) -> None:
    """Raises InputError where the section of the other kind of prior is among those `given`: it would do nothing."""
    for other in PRIORS:
        if other != kind and other in given:
            raise InputError(
                f"generation.{other} is set, but the prior is of kind {kind}, which it does not concern; "
                f"set generation.{kind}, or leave it out"
            )


def _refuse_analytic_dpm(sampler: SamplerName) -> None:
    if sampler == "analytic_dpm":
        raise InputError(
            "sampler=analytic_dpm is the prior's, which can be calibrated for it; set another sampler"
        )
