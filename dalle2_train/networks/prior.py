"""The diffusion prior: caption → CLIP image embedding, by a causal Transformer (§2.2 of unCLIP).

B batch, E embedding, L text length, S width of the text's states, N = L + 4 tokens, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.errors import InputError
from dalle2_train.networks.attention import HIDDEN, visibility_bias
from dalle2_train.networks.embeddings import TimestepEmbedding
from dalle2_train.networks.init import zero_init
from dalle2_train.networks.prior_shape import PriorShape, without_text_encoder
from dalle2_train.networks.text_encoder import TextEncoder
from dalle2_train.networks.transformer import TransformerBlock, init_transformer

NUM_ADDED_TOKENS = 4  # text embedding, time, noised image embedding, query


@dataclass(frozen=True)
class PriorConfig(PriorShape):
    """The diffusion prior's shape."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 2:
            raise InputError(f"num_heads {self.num_heads} × head_dim {self.head_dim} must be even")


class Prior(nn.Module):
    """Predicts the image embedding, normalised, from its noised self and the caption.

    Its state_dict is that of diffusers' `PriorTransformer`. `clip_mean` and `clip_std` (1, E) are buffers: they are
    statistics of the data, which no optimizer, weight decay or average touches.
    """

    clip_mean: Tensor
    clip_std: Tensor
    causal_bias: Tensor

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, num_tokens = config.width, config.num_text_tokens + NUM_ADDED_TOKENS
        self.time_embedding = TimestepEmbedding(width, width)
        self.proj_in = nn.Linear(config.embed_dim, width)
        self.embedding_proj = nn.Linear(config.embed_dim, width)
        self.encoder_hidden_states_proj = nn.Linear(config.text_width, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.prd_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, config.dropout) for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.proj_to_clip_embeddings = nn.Linear(width, config.embed_dim)
        causal = torch.full((num_tokens, num_tokens), HIDDEN).triu(1)
        self.register_buffer("causal_bias", causal, persistent=False)
        self.register_buffer("clip_mean", torch.zeros(1, config.embed_dim))
        self.register_buffer("clip_std", torch.ones(1, config.embed_dim))
        self.reset_parameters()
        self.text_encoder = None if config.text_encoder is None else TextEncoder(config.text_encoder)

    def reset_parameters(self) -> None:
        """`init_transformer`; the last layer is zero, so that the first prediction is the mean embedding.

        A text encoder stays as it is: it has a `reset_parameters` of its own.
        """
        init_transformer(without_text_encoder(self), self.config.depth)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.prd_embedding, std=0.02)
        zero_init(self.proj_to_clip_embeddings)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return [*(self.text_encoder.blocks if self.text_encoder else []), *self.transformer_blocks]

    def normalise(self, image_embed: Tensor) -> Tensor:
        """CLIP's image embeddings (B, E) → the space that is diffused: mean 0, standard deviation 1."""
        return (image_embed - self.clip_mean) / self.clip_std

    def denormalise(self, x_0: Tensor) -> Tensor:
        """The inverse of `normalise`: diffusers' `post_process_latents`."""
        return x_0 * self.clip_std + self.clip_mean

    def read(self, text_embed: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`forward`'s text as `predict` takes it: token ids (B, L) are read by the text encoder, states stay."""
        if self.text_encoder is None:
            return text_embed, text, text_mask
        return text_embed, self.text_encoder(text, text_mask).states, torch.ones_like(text_mask)

    def forward(self, x_t: Tensor, t: Tensor, text_embed: Tensor, text: Tensor, text_mask: Tensor) -> Tensor:
        """Predict (B, E).

        `x_t` (B, E) normalised and noised, `t` (B,), `text_embed` (B, E), `text` (B, L, S) states, or, with a text
        encoder, token ids (B, L); `text_mask` (B, L) bool, True where there is text.
        """
        return self.predict(x_t, t, *self.read(text_embed, text, text_mask))

    def predict(
        self, x_t: Tensor, t: Tensor, text_embed: Tensor, states: Tensor, text_mask: Tensor
    ) -> Tensor:
        """`forward` of text that was `read`, which sampling does once for all steps; `states` (B, L, S)."""
        text = self.encoder_hidden_states_proj(states)  # (B, L, D)
        added = [self.embedding_proj(text_embed), self.time_embedding(t), self.proj_in(x_t)]  # 3 × (B, D)
        query = self.prd_embedding.to(text.dtype).expand(len(text), -1, -1)  # (B, 1, D)
        tokens = torch.cat([text, torch.stack(added, dim=1), query], dim=1)  # (B, N, D)
        tokens = tokens + self.positional_embedding.to(tokens.dtype)
        visible = F.pad(text_mask, (0, NUM_ADDED_TOKENS), value=True)  # (B, N)
        bias = visibility_bias(visible, tokens.dtype)[:, None, None, :] + self.causal_bias  # (B, 1, N, N)
        *earlier, last = self.transformer_blocks
        for block in earlier:
            tokens = block(tokens, bias)  # (B, N, D)
        # Nobody reads what the last block makes of the others.
        query = last(tokens, bias[..., -1:, :], num_out=1)  # (B, 1, D)
        return self.proj_to_clip_embeddings(self.norm_out(query[:, 0]))  # (B, E)


def diffusers_config(config: PriorConfig) -> dict[str, Any]:
    """The keyword arguments of the `PriorTransformer` that computes the same function."""
    return {
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.depth,
        "embedding_dim": config.embed_dim,
        "num_embeddings": config.num_text_tokens,
        "additional_embeddings": NUM_ADDED_TOKENS,
        "dropout": config.dropout,
    }
