"""Image embedding → small picture.

Legend: B prompts, E embedding, H W the picture's size.
"""

import torch
from torch import Tensor

from dalle2_train.diffusion.samplers import Denoise
from dalle2_train.encoders.captions import Text
from dalle2_train.generation.config import DecoderStageConfig
from dalle2_train.generation.halves import both_halves, guided, twice
from dalle2_train.generation.noise import Noise
from dalle2_train.generation.stage import Run, Tick, run_stage
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.decoder import Decoder


def run_decoder(
    part: Part[Decoder],
    image_embed: Tensor | None,
    text: Text,
    null_text: Text,
    draws: Noise,
    config: DecoderStageConfig,
    tick: Tick,
    run: Run | None = None,
) -> Tensor:
    """Image embeddings (B, E), or None for the learned null, and what the decoder is told of the text (B), with CLIP's
    text embedding → small pictures (B, 3, H, W) in [-1, 1]."""
    denoise = decoder_denoiser(part, image_embed, text, null_text, config)
    shape = (3, part.network.config.image_size, part.network.config.image_size)
    return run_stage(part, "decoder", denoise, shape, config, draws, tick, run).clamp(-1, 1)


def decoder_denoiser(
    part: Part[Decoder],
    image_embed: Tensor | None,
    text: Text,
    null_text: Text,
    config: DecoderStageConfig,
) -> Denoise:
    """Noised pictures (B, 3, H, W) and t (B,) → the guided prediction (B, 6, H, W), given `run_decoder`'s arguments."""
    network, scale = part.network, config.guidance_scale
    both = network.read(*both_halves(text, null_text, scale))  # (2B, …) or (B, …)
    null = network.null_image_embed.expand_as(text.text_embed)  # (B, E)
    condition = null if image_embed is None else image_embed
    if scale != 1:
        condition = torch.cat([null, condition])  # (2B, E)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        prediction = network.predict(*twice(x_t, t, scale), condition, *both)  # (2B, 6, H, W)
        # The variance is the conditional half's, unguided.
        return guided(prediction, scale, 3, config.guidance_rescale)  # (B, 6, H, W)

    return denoise
