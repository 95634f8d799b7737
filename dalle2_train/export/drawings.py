"""What is drawn to prove an exported folder: by us, and as diffusers' pipeline is asked for it.

Legend: B pictures, H W their size, S the CLIP's image size.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.encoders.pixels import to_pixel_values
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.decoder import run_decoder
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pipeline import generate_stages
from dalle2_train.generation.unclip import Part, Unclip
from dalle2_train.generation.upsampling import run_upsampler
from dalle2_train.generation.words import read_prompts

NUM_PICTURES = 2
"""Of which variations are drawn."""


class Drawing(NamedTuple):
    """Our pictures, and all that diffusers needs to draw them too."""

    images: Tensor
    """(B, H, W, 3) in [0, 1]."""
    request: dict[str, object]
    """Arguments of the pipeline's __call__."""
    given: dict[str, Tensor]
    """Its tensors: x_T of each stage as *_latents, the steps' noise named so that it sorts in the order of its use, and
    of variations the picture (B, S, S, 3) uint8 with the pixel_values (B, 3, S, S) that CLIP sees of it."""


def of_prompts(unclip: Unclip, prompts: Sequence[str], config: GenerationConfig) -> Drawing:
    """What UnCLIPPipeline draws of `prompts`."""
    images = torch.cat([stages.image for stages in generate_stages(unclip, prompts, 0, config)])
    assert isinstance(unclip.prior, Part)
    prior = {
        "prompt": list(prompts),
        "prior_num_inference_steps": config.prior.num_steps,
        "prior_guidance_scale": config.prior.guidance_scale,
    }
    shape = (unclip.prior.network.config.embed_dim,)
    stages = [("prior", "prior_latents", shape, config.prior.num_steps), *_picture_stages(unclip, config)]
    return Drawing(_to_unit(images), prior | _request(config), _noise(stages, len(prompts)))


@torch.inference_mode()
def of_pictures(unclip: Unclip, config: GenerationConfig) -> Drawing:
    """What UnCLIPImageVariationPipeline draws of two random pictures."""
    clip, generator = unclip.clip, torch.Generator().manual_seed(0)
    size = clip.image_size
    picture = torch.randint(0, 256, (NUM_PICTURES, 3, size, size), dtype=torch.uint8, generator=generator)
    _, words = read_prompts(unclip, [""] * NUM_PICTURES)
    draws = Draws(0, torch.arange(NUM_PICTURES))
    image_embed = clip.encode_image(picture)  # (B, E)
    small = run_decoder(unclip.decoder, image_embed, *words, draws, config.decoder, _no_tick)
    (part,) = unclip.upsamplers
    images = run_upsampler(part, "upsampler", small, draws, config.upsampler, _no_tick)
    seen = {
        "picture": picture.permute(0, 2, 3, 1).contiguous(),
        "pixel_values": to_pixel_values(picture, size, clip.pixels),
    }
    noise = _noise(_picture_stages(unclip, config), NUM_PICTURES)
    return Drawing(_to_unit(images), _request(config), noise | seen)


Stage = tuple[str, str, tuple[int, ...], int]
"""(name, diffusers' name of its x_T, shape of a sample, steps)."""


def _picture_stages(unclip: Unclip, config: GenerationConfig) -> list[Stage]:
    small, large = unclip.decoder.network.config.image_size, unclip.image_size
    return [
        ("decoder", "decoder_latents", (3, small, small), config.decoder.num_steps),
        ("upsampler", "super_res_latents", (3, large, large), config.upsampler.num_steps),
    ]


def _request(config: GenerationConfig) -> dict[str, object]:
    return {
        "decoder_num_inference_steps": config.decoder.num_steps,
        "super_res_num_inference_steps": config.upsampler.num_steps,
        "decoder_guidance_scale": config.decoder.guidance_scale,
    }


def _noise(stages: Sequence[Stage], count: int) -> dict[str, Tensor]:
    draws = Draws(0, torch.arange(count))
    noise: dict[str, Tensor] = {}
    for order, (stage, latents, shape, num_steps) in enumerate(stages):
        noise[latents] = draws.initial(stage, shape)
        # The last step draws none.
        for step in range(num_steps - 1):
            noise[f"step-{order}-{step:04d}"] = draws.of_step(stage, shape, step)
    return noise


def _to_unit(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] → (B, H, W, 3) in [0, 1]."""
    return (images * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _no_tick() -> None:
    pass
