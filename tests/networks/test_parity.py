"""Ours against diffusers' on shapes, batches, timesteps and masks drawn at random: nothing holds for one shape only."""

import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor

from dalle2_train.networks import decoder, prior, upsampler
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig

DTYPES = [torch.float64, torch.float32]
BATCHES = (1, 2, 3, 5, 7)


class Drawn:
    """Random shapes and inputs of one seed."""

    def __init__(self, seed: int, generator: torch.Generator, dtype: torch.dtype) -> None:
        self.choose = random.Random(seed).choice
        self.generator, self.dtype = generator, dtype
        self.batch_size = self.choose(BATCHES)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=self.dtype)

    def t(self) -> Tensor:
        return torch.randint(0, 1000, (self.batch_size,), generator=self.generator)

    def mask(self, length: int) -> Tensor:
        """(B, L) bool: a padded caption's, all, none, or with holes, a kind for each sample."""
        lengths = torch.randint(1, length + 1, (self.batch_size, 1), generator=self.generator)
        kinds = [
            torch.arange(length) < lengths,
            torch.ones(self.batch_size, length, dtype=torch.bool),
            torch.zeros(self.batch_size, length, dtype=torch.bool),
            torch.rand(self.batch_size, length, generator=self.generator) < 0.5,
        ]
        return torch.stack([self.choose(kinds)[row] for row in range(self.batch_size)])

    def levels(self) -> dict[str, Any]:
        groups = self.choose((2, 4, 8))
        num_levels = self.choose((1, 2, 3))
        return {
            "channels": tuple(groups * self.choose((2, 4, 6)) for _ in range(num_levels)),
            "num_groups": groups,
            "num_resnets": self.choose((1, 2, 3)),
        }


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_prior(parity: SimpleNamespace, generator: torch.Generator, seed: int, dtype: torch.dtype) -> None:
    draw = Drawn(seed, generator, dtype)
    config = PriorConfig(
        embed_dim=draw.choose((7, 16, 33)),
        num_text_tokens=draw.choose((1, 5, 12)),
        depth=draw.choose((1, 2, 4)),
        num_heads=draw.choose((1, 3)),
        head_dim=draw.choose((4, 10)),
    )
    ours = Prior(config).to(dtype).eval()
    theirs = PriorTransformer(**prior.diffusers_config(config)).to(dtype).eval()
    parity.randomise(ours, generator)
    parity.same_keys(ours, theirs)
    length, embed_dim = config.num_text_tokens, config.embed_dim
    inputs = (
        draw.normal(draw.batch_size, embed_dim),
        draw.t(),
        draw.normal(draw.batch_size, embed_dim),
        draw.normal(draw.batch_size, length, embed_dim),
        draw.mask(length),
    )
    parity.close(ours(*inputs), theirs(*inputs).predicted_image_embedding)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
@torch.no_grad()
def test_decoder_and_its_text_projection(
    parity: SimpleNamespace, generator: torch.Generator, seed: int, dtype: torch.dtype
) -> None:
    draw = Drawn(seed, generator, dtype)
    levels, length = draw.levels(), draw.choose((1, 6, 11))
    config = DecoderConfig(
        image_size=draw.choose((8, 16)),
        attention=tuple(draw.choose((False, True)) for _ in levels["channels"]),
        head_dim=draw.choose((2, 4)) if levels["num_groups"] > 2 else 2,
        embed_dim=draw.choose((9, 16)),
        context_dim=draw.choose((None, 14)),
        time_dim=draw.choose((None, 26)),
        num_extra_tokens=draw.choose((1, 2, 4)),
        **levels,
    )
    if length in decoder.unexportable_text_lengths(config):
        length += 1
    ours = Decoder(config).to(dtype).eval()
    unet = UNet2DConditionModel(**decoder.diffusers_config(config)).to(dtype).eval()
    text_proj = UnCLIPTextProjModel(**decoder.diffusers_text_proj_config(config)).to(dtype).eval()
    parity.randomise(ours, generator)
    parity.same_keys(ours.unet, unet)
    parity.same_keys(ours.text_proj, text_proj)

    size, embed_dim, batch_size = config.image_size, config.embed_dim, draw.batch_size
    x_t, t, mask = draw.normal(batch_size, 3, size, size), draw.t(), draw.mask(length)
    image_embed, text_embed = draw.normal(batch_size, embed_dim), draw.normal(batch_size, embed_dim)
    text_encodings = draw.normal(batch_size, length, embed_dim)
    context, time_shift = text_proj(
        image_embeddings=image_embed,
        prompt_embeds=text_embed,
        text_encoder_hidden_states=text_encodings,
        do_classifier_free_guidance=False,
    )
    our_context, our_shift = ours.text_proj(image_embed, text_embed, text_encodings, None)
    parity.close(our_context, context)
    parity.close(our_shift, time_shift)
    visible = F.pad(mask, (config.num_extra_tokens, 0), value=True)
    expected = unet(x_t, t, context, class_labels=time_shift, attention_mask=visible).sample
    parity.close(ours(x_t, t, image_embed, text_embed, text_encodings, mask), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(6))
@torch.no_grad()
def test_upsampler(
    parity: SimpleNamespace, generator: torch.Generator, seed: int, dtype: torch.dtype
) -> None:
    draw = Drawn(seed, generator, dtype)
    config = UpsamplerConfig(low_size=4, high_size=draw.choose((8, 16)), **draw.levels())
    ours = Upsampler(config).to(dtype).eval()
    theirs = UNet2DModel(**upsampler.diffusers_config(config)).to(dtype).eval()
    parity.randomise(ours, generator)
    parity.same_keys(ours, theirs)
    shape = (draw.batch_size, 3, config.high_size, config.high_size)
    x_t, low, t = draw.normal(*shape), draw.normal(*shape), draw.t()
    parity.close(ours(x_t, t, low), theirs(torch.cat([x_t, low], dim=1), t).sample)
