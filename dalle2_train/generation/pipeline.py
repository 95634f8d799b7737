"""Text → prior → decoder → upsampler → pictures, with classifier-free guidance, in batches of prompts.

The formulas and their order are diffusers' UnCLIPPipeline's, so that equal noise gives equal pictures.
Legend: B prompts, E embedding, L context length, H W a stage's picture size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.diffusion.guidance import guide
from dalle2_train.diffusion.samplers import SamplerConfig, sample
from dalle2_train.encoders.encoder import TextFeatures
from dalle2_train.errors import InputError
from dalle2_train.generation.load import Part, Unclip
from dalle2_train.networks.upsampler import enlarge

# Coordinates of the prior's embedding have unit variance: 5 cuts what lies far out. Pictures are in [-1, 1].
PRIOR_CLIP_RANGE, IMAGE_CLIP_RANGE = 5.0, 1.0

Progress = Callable[[int, int], None]
"""Called as progress(done, total) after every denoising step of a batch."""

Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class GenerationConfig:
    """How pictures are sampled. The defaults are Karlo's."""

    prior_num_steps: int = 25
    """Denoising steps of the prior."""
    decoder_num_steps: int = 25
    upsampler_num_steps: int = 7
    prior_guidance_scale: float = 4.0
    """1: none, one forward a step instead of two; more: closer to the text, less varied."""
    decoder_guidance_scale: float = 4.0
    sampler: Literal["ddpm", "ddim", "dpm_solver"] = "ddpm"
    """ddpm draws noise at every step; ddim with eta 0 and dpm_solver (DPM-Solver++, 2M) draw none."""
    eta: float = 0.0
    """ddim only: 0 deterministic, 1 about as noisy as ddpm."""
    batch_size: int = 32
    """Prompts sampled at once; bounds memory and changes no picture."""

    def __post_init__(self) -> None:
        for name in ("prior_num_steps", "decoder_num_steps", "upsampler_num_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: sampling needs at least 1 step")
        for name in ("prior_guidance_scale", "decoder_guidance_scale", "eta"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}={getattr(self, name)} is negative; give 0 or more")
        if self.eta != 0 and self.sampler != "ddim":
            raise InputError(f"eta={self.eta} is ddim's; set sampler=ddim, or leave eta 0 for {self.sampler}")
        if self.batch_size < 1:
            raise InputError(f"batch_size={self.batch_size}: give at least 1")

    def num_steps(self, unclip: Unclip) -> int:
        """Denoising steps for one batch through all the stages that `unclip` has."""
        upsampler = self.upsampler_num_steps if unclip.upsampler is not None else 0
        return self.prior_num_steps + self.decoder_num_steps + upsampler


class Draws(NamedTuple):
    """Names the noise of a batch: prompt i of a list gets the same noise whatever the batches are."""

    seed: int
    index: Tensor
    """(B,) int64: the prompts' places in the list."""

    def initial(self, stage: str, shape: Sequence[int]) -> Tensor:
        """x_T of a stage, (B, *shape)."""
        return seeding.normal(shape, self.seed, f"generation/{stage}", 0, self.index)

    def of_step(self, stage: str, shape: Sequence[int], step: int) -> Tensor:
        """The noise added after denoising step `step` (from 0) of a stage, (B, *shape)."""
        return seeding.normal(shape, self.seed, f"generation/{stage}", step + 1, self.index)


class Stages(NamedTuple):
    """What each stage made."""

    image_embed: Tensor
    """(B, E) in CLIP's own scale."""
    small: Tensor
    """(B, 3, H, W) in [-1, 1]: the decoder's."""
    image: Tensor
    """(B, 3, H, W) in [-1, 1]: the upsampler's, or `small` where there is none."""


def generate(
    unclip: Unclip,
    prompts: Sequence[str],
    seed: int = 0,
    config: GenerationConfig = GenerationConfig(),
    *,
    progress: Progress | None = None,
) -> Tensor:
    """One picture per prompt, (B, 3, H, W) uint8.

    The picture of prompt i depends on (seed, i, the prompt, config without batch_size), up to rounding.
    Errors: InputError when there are no prompts or a number of steps exceeds the training's.
    """
    batches = [stages.image for stages in generate_stages(unclip, prompts, seed, config, progress=progress)]
    return to_uint8(torch.cat(batches))


@torch.inference_mode()
def generate_stages(
    unclip: Unclip,
    prompts: Sequence[str],
    seed: int,
    config: GenerationConfig,
    *,
    progress: Progress | None = None,
) -> list[Stages]:
    """`generate`, but every stage's floats, batch by batch."""
    if not prompts:
        raise InputError("no prompt was given; give at least one")
    _check_steps(unclip, config)
    starts = range(0, len(prompts), config.batch_size)
    tick = _ticker(progress, len(starts) * config.num_steps(unclip))
    null_text = unclip.clip.null_text()
    batches = []
    for start in starts:
        texts = list(prompts[start : start + config.batch_size])
        draws = Draws(seed, torch.arange(start, start + len(texts)))
        text = unclip.clip.encode_captions(texts)
        image_embed = run_prior(unclip, text, null_text, draws, config, tick)  # (B, E)
        small = run_decoder(unclip, image_embed, text, null_text, draws, config, tick)  # (B, 3, h, w)
        image = run_upsampler(unclip, small, draws, config, tick)  # (B, 3, H, W)
        batches.append(Stages(image_embed, small, image))
    return batches


def run_prior(
    unclip: Unclip,
    text: TextFeatures,
    null_text: TextFeatures,
    draws: Draws,
    config: GenerationConfig,
    tick: Callable[[], None],
) -> Tensor:
    """Text features (B) and those of the empty string (1) → image embeddings (B, E) in CLIP's own scale."""
    network, scale = unclip.prior.network, config.prior_guidance_scale
    both = _both_halves(text, null_text, scale)  # (2B, …) or (B, …)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = network(*_twice(x_t, t, scale), *both)
        return _guided(prediction, scale)  # (B, E)

    sampler = sampler_config(unclip.prior, config, config.prior_num_steps, PRIOR_CLIP_RANGE)
    shape = (network.config.embed_dim,)
    return network.denormalise(_run(unclip.prior, "prior", denoise, shape, sampler, draws, tick))


def run_decoder(
    unclip: Unclip,
    image_embed: Tensor,
    text: TextFeatures,
    null_text: TextFeatures,
    draws: Draws,
    config: GenerationConfig,
    tick: Callable[[], None],
) -> Tensor:
    """Image embeddings (B, E) and text features (B) → small pictures (B, 3, H, W) in [-1, 1]."""
    network, scale = unclip.decoder.network, config.decoder_guidance_scale
    both = _both_halves(text, null_text, scale)  # (2B, …) or (B, …)
    if scale != 1:
        image_embed = torch.cat([network.null_image_embed.expand_as(image_embed), image_embed])

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = network(*_twice(x_t, t, scale), image_embed, *both)  # (2B, 6, H, W)
        # The variance is the conditional half's, unguided.
        return _guided(prediction, scale, num_guided=3)  # (B, 6, H, W)

    sampler = sampler_config(unclip.decoder, config, config.decoder_num_steps, IMAGE_CLIP_RANGE)
    shape = (3, network.config.image_size, network.config.image_size)
    return _run(unclip.decoder, "decoder", denoise, shape, sampler, draws, tick).clamp(-1, 1)


def run_upsampler(
    unclip: Unclip, small: Tensor, draws: Draws, config: GenerationConfig, tick: Callable[[], None]
) -> Tensor:
    """Small pictures (B, 3, h, w) → large ones (B, 3, H, W); without an upsampler they stay as they are."""
    part = unclip.upsampler
    if part is None:
        return small
    network, size = part.network, part.network.config.high_size
    low_res_image = enlarge(small, size)  # (B, 3, H, W)
    sampler = sampler_config(part, config, config.upsampler_num_steps, IMAGE_CLIP_RANGE)
    x_0 = _run(
        part,
        "upsampler",
        lambda x_t, t: network(x_t, t, low_res_image),
        (3, size, size),
        sampler,
        draws,
        tick,
    )
    return x_0.clamp(-1, 1)


def sampler_config(part: Part, config: GenerationConfig, num_steps: int, clip_range: float) -> SamplerConfig:
    """How a part is sampled: what was asked for, and what its training fixed."""
    # Only ddpm has a use for a learned variance: ddim's noise is eta's, dpm_solver has none.
    learned = part.objective.learned_variance and config.sampler == "ddpm"
    return SamplerConfig(
        name=config.sampler,
        num_steps=num_steps,
        eta=config.eta,
        variance="learned_range" if learned else "fixed_small_log",
        clip_sample_range=clip_range,
        prediction_type=part.objective.prediction_type,
    )


def to_uint8(image: Tensor) -> Tensor:
    """[-1, 1] → 0 … 255, rounded to nearest."""
    return ((image.clamp(-1, 1) * 0.5 + 0.5) * 255).round().to(torch.uint8)


def _run(
    part: Part,
    stage: str,
    denoise: Denoise,
    shape: tuple[int, ...],
    sampler: SamplerConfig,
    draws: Draws,
    tick: Callable[[], None],
) -> Tensor:
    """Samples one stage from its keyed noise, (B, *shape)."""
    weight = next(part.network.parameters())
    like = {"device": weight.device, "dtype": weight.dtype}

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = denoise(x_t, t)
        tick()
        return prediction

    x_T = draws.initial(stage, shape).to(**like)
    return sample(
        counted,
        x_T,
        part.schedule.to(weight.device),
        sampler,
        lambda step: draws.of_step(stage, shape, step).to(**like),
    )


def _both_halves(text: TextFeatures, null_text: TextFeatures, scale: float) -> TextFeatures:
    """The empty string's features for every prompt, then the prompts' (2B); without guidance only these."""
    if scale == 1:
        return text
    pairs = zip(null_text, text, strict=True)
    return TextFeatures(*(torch.cat([null.expand_as(given), given]) for null, given in pairs))


def _twice(x_t: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    return (x_t, t) if scale == 1 else (torch.cat([x_t, x_t]), torch.cat([t, t]))


def _guided(prediction: Tensor, scale: float, num_guided: int | None = None) -> Tensor:
    if scale == 1:
        return prediction
    uncond, cond = prediction.chunk(2)
    return guide(cond, uncond, scale, num_guided)


def _check_steps(unclip: Unclip, config: GenerationConfig) -> None:
    asked = [
        ("prior", unclip.prior, config.prior_num_steps),
        ("decoder", unclip.decoder, config.decoder_num_steps),
    ]
    if unclip.upsampler is not None:
        asked.append(("upsampler", unclip.upsampler, config.upsampler_num_steps))
    for name, part, num_steps in asked:
        trained = part.schedule_config.num_steps
        if num_steps > trained:
            raise InputError(
                f"{name}_num_steps={num_steps}: the {name} was trained with {trained}; give no more"
            )


def _ticker(progress: Progress | None, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick
