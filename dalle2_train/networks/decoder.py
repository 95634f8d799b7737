"""The decoder: CLIP image embedding and text → image, by a U-Net with context attention (§2.1 of unCLIP, GLIDE).

B batch, E embedding, L text length, S width of the text's states, M = extra tokens + L context tokens, K context width,
D time width, H W pixels.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.errors import InputError
from dalle2_train.networks.attention import visibility_bias
from dalle2_train.networks.checks import check_dropout, check_levels, check_positive
from dalle2_train.networks.text_encoder import TextEncoder, TextEncoderConfig
from dalle2_train.networks.text_projection import TextProjection
from dalle2_train.networks.unet import UNet, UNetConfig


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder's shape; defaults are Karlo's."""

    image_size: int = 64
    """Side of the image, in pixels."""
    channels: tuple[int, ...] = (320, 640, 960, 1280)
    """Width of each level; multiples of num_groups."""
    num_resnets: int = 3
    """Residual blocks per level on the way down (one more on the way up)."""
    attention: tuple[bool, ...] = (False, True, True, True)
    """Which levels have attention over pixels and context, highest resolution first; the middle always has."""
    head_dim: int = 64
    """Width of an attention head; divides the width of the levels with attention and of the last."""
    embed_dim: int = 768
    """Width of CLIP's embeddings and of its text states."""
    context_dim: int | None = None
    """Width of the context tokens that attention sees; None: that of the text's states (Karlo: 1536)."""
    time_dim: int | None = None
    """Width of the time vector, which also carries the embeddings; None: four times the first level's (Karlo's)."""
    num_extra_tokens: int = 4
    """Context tokens made of the image embedding."""
    num_groups: int = 32
    """Of every GroupNorm; divides every width. A narrow network needs fewer: a group of one channel forgets its mean,
    and with it the picture's colour."""
    dropout: float = 0.0
    """Dropout probability in the residual blocks."""
    text_encoder: TextEncoderConfig | None = None
    """GLIDE's own text encoder, trained with the decoder (the paper's); None: CLIP's text states and text embedding
    (Karlo's)."""

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "num_resnets", "num_groups", "head_dim", "embed_dim", "context_dim",
                       "time_dim", "num_extra_tokens")  # fmt: skip
        check_dropout(self.dropout)
        check_levels(self.image_size, self.channels, self.num_groups)
        if len(self.attention) != len(self.channels):
            raise InputError(
                f"attention {list(self.attention)} must say true or false of each of the {len(self.channels)} channels"
            )
        attended = [width for width, has in zip(self.channels, self.attention, strict=True) if has]
        for width in [*attended, self.channels[-1]]:
            if width % self.head_dim:
                raise InputError(f"head_dim {self.head_dim} must divide {width}, a width with attention")

    @property
    def context_width(self) -> int:
        """`context_dim` resolved."""
        return self.context_dim or self.text_width

    @property
    def text_width(self) -> int:
        """Width S of the text's states and of its one vector."""
        return self.embed_dim if self.text_encoder is None else self.text_encoder.width

    @property
    def time_width(self) -> int:
        """`time_dim` resolved."""
        return self.time_dim or 4 * self.channels[0]


class Decoder(nn.Module):
    """Predicts noise and variance of a noised image, given a CLIP image embedding and a caption."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.text_proj = TextProjection(
            config.embed_dim,
            config.text_width,
            config.context_width,
            config.time_width,
            config.num_extra_tokens,
        )
        self.unet = UNet(
            UNetConfig(
                in_channels=3,
                out_channels=6,
                channels=config.channels,
                num_resnets=config.num_resnets,
                attention=config.attention,
                mid_attention=True,
                head_dim=config.head_dim,
                context_dim=config.context_width,
                scale_shift=True,
                dropout=config.dropout,
                num_groups=config.num_groups,
                time_dim=config.time_width,
            )
        )
        self.text_encoder = None if config.text_encoder is None else TextEncoder(config.text_encoder)

    @property
    def null_image_embed(self) -> Tensor:
        """The learned embedding (E,) that stands for no image; `keep_image` also reaches it when it is sharded.

        Of a decoder that whitens, it is a white one and no other's, so there it is `keep_image`'s alone.
        """
        assert self.text_proj.whitening is None
        return self.text_proj.learned_classifier_free_guidance_embeddings

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return [*(self.text_encoder.blocks if self.text_encoder else []), *self.unet.blocks]

    def read(self, text_embed: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`forward`'s text as `predict` takes it: token ids (B, L) are read by the text encoder, states stay.

        GLIDE's pooled vector takes the place of CLIP's text embedding, which the paper's decoder does not read.
        """
        if self.text_encoder is None:
            return text_embed, text, text_mask
        found = self.text_encoder(text, text_mask)
        return found.pooled, found.states, torch.ones_like(text_mask)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        image_embed: Tensor,
        text_embed: Tensor,
        text: Tensor,
        text_mask: Tensor,
        keep_image: Tensor | None = None,
    ) -> Tensor:
        """Predict (B, 6, H, W), mean channels first.

        `x_t` (B, 3, H, W), `t` (B,), `image_embed` (B, E), `text_embed` (B, S), `text` (B, L, S) states, or, with a
        text encoder, token ids (B, L); `text_mask` (B, L) bool, True where there is text; `keep_image` (B,) bool puts
        the learned null in place of the image embedding where False.
        """
        return self.predict(x_t, t, image_embed, *self.read(text_embed, text, text_mask), keep_image)

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        image_embed: Tensor,
        text_embed: Tensor,
        states: Tensor,
        text_mask: Tensor,
        keep_image: Tensor | None = None,
    ) -> Tensor:
        """`forward` of text that was `read`, which sampling does once for all steps; `states` (B, L, S)."""
        context, time_shift = self.text_proj(image_embed, text_embed, states, keep_image)
        visible = F.pad(text_mask, (self.config.num_extra_tokens, 0), value=True)  # (B, M)
        bias = visibility_bias(visible, x_t.dtype)[:, None, None, :]  # (B, 1, 1, M)
        return self.unet(x_t, t, time_shift, context, bias)  # (B, 6, H, W)


def diffusers_config(config: DecoderConfig) -> dict[str, Any]:
    """The keyword arguments of the `UNet2DConditionModel` that computes the same function as `Decoder.unet`."""
    down = ["SimpleCrossAttnDownBlock2D" if has else "ResnetDownsampleBlock2D" for has in config.attention]
    up = ["SimpleCrossAttnUpBlock2D" if has else "ResnetUpsampleBlock2D" for has in config.attention[::-1]]
    return {
        "sample_size": config.image_size,
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": config.channels,
        "layers_per_block": config.num_resnets,
        "down_block_types": tuple(down),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": tuple(up),
        "cross_attention_dim": config.context_width,
        "class_embed_type": "identity",
        "attention_head_dim": config.head_dim,
        "resnet_time_scale_shift": "scale_shift",
        "time_embedding_dim": config.time_dim,
        "dropout": config.dropout,
        "norm_num_groups": config.num_groups,
    }


def diffusers_text_proj_config(config: DecoderConfig) -> dict[str, Any]:
    """The keyword arguments of the `UnCLIPTextProjModel` that computes the same function as `Decoder.text_proj`."""
    return {
        "clip_extra_context_tokens": config.num_extra_tokens,
        "clip_embeddings_dim": config.embed_dim,
        "time_embed_dim": config.time_width,
        "cross_attention_dim": config.context_width,
    }


def unexportable_text_lengths(config: DecoderConfig) -> list[int]:
    """Text lengths L for which diffusers' attention fails although ours works.

    It pads the context's mask to the pixels only where the number of context tokens differs from that of pixels.
    """
    sizes = [config.image_size >> level for level, has in enumerate(config.attention) if has]
    sizes.append(config.image_size >> (len(config.channels) - 1))
    lengths = {size * size - config.num_extra_tokens for size in sizes}
    return sorted(length for length in lengths if length > 0)
