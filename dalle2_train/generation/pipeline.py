"""Text → prior → decoder → upsamplers → pictures, with classifier-free guidance, in batches of prompts.

The formulas and their order are diffusers' UnCLIPPipeline's, so that equal noise gives equal pictures.
Legend: B prompts, E embedding, H W a stage's picture size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.ar_prior import run_ar_prior
from dalle2_train.generation.config import GenerationConfig, StageConfig
from dalle2_train.generation.decoder import run_decoder
from dalle2_train.generation.embeds import check_embed, text_as_image_embed
from dalle2_train.generation.noise import Draws, Noise
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.prior import run_prior
from dalle2_train.generation.stage import Tick, check_stage
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import UPSAMPLERS, ArPriorPart, Part, Unclip
from dalle2_train.generation.upsampling import run_upsampler
from dalle2_train.generation.words import Words, read_prompts
from dalle2_train.networks.upsampler import Upsampler


class Stages(NamedTuple):
    """What each stage made."""

    image_embed: Tensor | None
    """(B, E) in CLIP's own scale: the prior's, or the caption's in its place; None for the learned null."""
    text_embed: Tensor
    """(B, E) CLIP's, of the captions."""
    small: Tensor
    """(B, 3, H, W) in [-1, 1]: the decoder's."""
    image: Tensor
    """(B, 3, H, W) in [-1, 1]: the last upsampler's, or `small` where there is none."""


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
    check_sampling(unclip, config)
    starts = range(0, len(prompts), config.batch_size)
    tick = ticker(progress, len(starts) * num_forwards(unclip, config))
    batches = []
    for start in starts:
        texts = list(prompts[start : start + config.batch_size])
        draws = Draws(seed, torch.arange(start, start + len(texts)))
        batches.append(_run_stages(unclip, texts, draws, config, tick))
    return batches


def _run_stages(
    unclip: Unclip, prompts: Sequence[str], draws: Draws, config: GenerationConfig, tick: Tick
) -> Stages:
    of_prior, of_decoder = read_prompts(unclip, prompts)
    image_embed = choose_image_embed(unclip, of_prior, draws, config, tick)  # (B, E)
    # (B, 3, h, w)
    small = run_decoder(unclip.decoder, image_embed, *of_decoder, draws, config.decoder, tick)
    image = run_upsamplers(unclip, small, draws, config, tick)
    return Stages(image_embed, of_prior.text.text_embed, small, image)


def run_upsamplers(
    unclip: Unclip, image: Tensor, draws: Noise, config: GenerationConfig, tick: Tick
) -> Tensor:
    """The decoder's pictures (B, 3, h, w) → those of the last upsampler (B, 3, H, W); without any they stay."""
    for stage, part in upsamplers_of(unclip).items():
        image = run_upsampler(part, stage, image, draws, getattr(config, stage), tick)
    return image


def upsamplers_of(unclip: Unclip) -> dict[str, Part[Upsampler]]:
    """Stage → the part, in the order in which they run."""
    return dict(zip(UPSAMPLERS, unclip.upsamplers, strict=False))


def choose_image_embed(
    unclip: Unclip, words: Words, draws: Draws, config: GenerationConfig, tick: Tick
) -> Tensor | None:
    """What `config.decoder.image_embed` says, (B, E), or None for the learned null."""
    match config.decoder.image_embed:
        case "none":
            return None
        case "text":
            return text_as_image_embed(unclip.decoder.manifest, words.text.text_embed)
        case "prior":
            assert unclip.prior is not None, "see check_embed"
            if isinstance(unclip.prior, ArPriorPart):
                return run_ar_prior(unclip.prior, *words, draws, config.ar_prior, tick)
            return run_prior(unclip.prior, *words, draws, config.prior, tick)


def stages_of(unclip: Unclip, config: GenerationConfig) -> dict[str, tuple[Part, StageConfig]]:
    """Name → the part and how it is sampled, of the diffusions that are run."""
    stages: dict[str, tuple[Part, StageConfig]] = {"decoder": (unclip.decoder, config.decoder)}
    prior = unclip.prior if config.decoder.image_embed == "prior" else None
    if prior is not None and not isinstance(prior, ArPriorPart):
        stages["prior"] = prior, config.prior
    return stages | {stage: (part, getattr(config, stage)) for stage, part in upsamplers_of(unclip).items()}


def check_sampling(unclip: Unclip, config: GenerationConfig) -> None:
    """Errors: InputError for whatever would stop `generate_stages`, once there are prompts."""
    check_embed(unclip, config)
    for name, (part, section) in stages_of(unclip, config).items():
        check_stage(part, name, section)


def num_forwards(unclip: Unclip, config: GenerationConfig) -> int:
    """Steps of all stages for one batch; an autoregressive prior's are its codes."""
    steps = sum(section.num_steps for _, section in stages_of(unclip, config).values())
    if config.decoder.image_embed == "prior" and isinstance(unclip.prior, ArPriorPart):
        steps += unclip.prior.network.config.num_dims
    return steps


def ticker(progress: Progress | None, total: int) -> Tick:
    """Counts the denoising steps of all batches for `progress`."""
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    return tick
