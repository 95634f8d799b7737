"""Each network twice, ours and diffusers', with equal weights and on equal inputs.

Legend: B batch, L text length, E embedding, H picture side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from diffusers import PriorTransformer, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor, nn

from dalle2_train.networks import decoder, prior, upsampler

Network = TypeVar("Network", bound=nn.Module)

EMBED_DIM, TEXT_LENGTH = 256, 24
PRIOR = prior.PriorConfig(EMBED_DIM, TEXT_LENGTH, depth=6, num_heads=8, head_dim=64)
DECODER = decoder.DecoderConfig(
    image_size=32,
    channels=(64, 128, 256),
    num_resnets=1,
    attention=(False, True, True),
    head_dim=32,
    embed_dim=EMBED_DIM,
)
UPSAMPLER = upsampler.UpsamplerConfig(low_size=32, high_size=64, channels=(64, 128, 192), num_resnets=1)
BATCH = {"prior": 64, "decoder": 16, "upsampler": 4}


@dataclass(frozen=True)
class Contender:
    """One implementation."""

    modules: tuple[nn.Module, ...]
    forward: Callable[[], Tensor]
    """Its prediction on its inputs, of the same shape as the other's."""


def pairs() -> dict[str, tuple[Contender, Contender]]:
    """Network → (ours, theirs)."""
    torch.manual_seed(0)
    return {"prior": _priors(), "decoder": _decoders(), "upsampler": _upsamplers()}


def randomise(network: Network) -> Network:
    """No path is silent: layers that begin at zero would leave the gradients behind them zero."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.6 * parameter[0].numel() ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.2)
    return network


def _priors() -> tuple[Contender, Contender]:
    ours = randomise(prior.Prior(PRIOR))
    theirs = PriorTransformer(**prior.diffusers_config(PRIOR))
    theirs.load_state_dict(ours.state_dict())
    inputs = (torch.randn(BATCH["prior"], EMBED_DIM), _timesteps("prior"), *_text("prior"))
    return (
        Contender((ours,), lambda: ours(*inputs)),
        Contender((theirs,), lambda: theirs(*inputs).predicted_image_embedding),
    )


def _decoders() -> tuple[Contender, Contender]:
    ours = randomise(decoder.Decoder(DECODER))
    unet: Any = UNet2DConditionModel(**decoder.diffusers_config(DECODER))
    text_proj = UnCLIPTextProjModel(**decoder.diffusers_text_proj_config(DECODER))
    unet.load_state_dict(ours.unet.state_dict())
    text_proj.load_state_dict(ours.text_proj.state_dict())
    x_t, t = _pictures("decoder", DECODER.image_size), _timesteps("decoder")
    image_embed = torch.randn(BATCH["decoder"], EMBED_DIM)
    text_embed, text_encodings, text_mask = _text("decoder")
    mask = F.pad(text_mask, (DECODER.num_extra_tokens, 0), value=True)  # (B, 4 + L)

    def theirs() -> Tensor:
        context, shift = text_proj(
            image_embeddings=image_embed,
            prompt_embeds=text_embed,
            text_encoder_hidden_states=text_encodings,
            do_classifier_free_guidance=False,
        )
        return unet(x_t, t, encoder_hidden_states=context, class_labels=shift, attention_mask=mask).sample

    return (
        Contender((ours,), lambda: ours(x_t, t, image_embed, text_embed, text_encodings, text_mask)),
        Contender((unet, text_proj), theirs),
    )


def _upsamplers() -> tuple[Contender, Contender]:
    ours = randomise(upsampler.Upsampler(UPSAMPLER))
    theirs: Any = UNet2DModel(**upsampler.diffusers_config(UPSAMPLER))
    theirs.load_state_dict(ours.state_dict())
    x_t, low = (_pictures("upsampler", UPSAMPLER.high_size) for _ in range(2))
    t = _timesteps("upsampler")
    return (
        Contender((ours,), lambda: ours(x_t, t, low)),
        Contender((theirs,), lambda: theirs(torch.cat([x_t, low], dim=1), t).sample),
    )


def _pictures(name: str, size: int) -> Tensor:
    """(B, 3, H, H)."""
    return torch.randn(BATCH[name], 3, size, size).contiguous(memory_format=torch.channels_last)


def _timesteps(name: str) -> Tensor:
    return torch.randint(0, 1000, (BATCH[name],))


def _text(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Text embedding (B, E), text states (B, L, E) and mask (B, L)."""
    count = BATCH[name]
    lengths = torch.randint(3, TEXT_LENGTH + 1, (count, 1))
    visible = torch.arange(TEXT_LENGTH) < lengths
    return torch.randn(count, EMBED_DIM), torch.randn(count, TEXT_LENGTH, EMBED_DIM), visible
