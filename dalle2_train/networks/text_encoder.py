"""GLIDE's text encoder, which the `paper` profile trains with the network that reads its states (Nichol et al. 2021).

B batch, L context length, D width.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dalle2_train.errors import InputError
from dalle2_train.networks.checks import check_positive
from dalle2_train.networks.transformer import TransformerBlock, init_transformer


@dataclass(frozen=True)
class TextEncoderConfig:
    """The text encoder's shape; defaults are the paper's, over the vocabulary of OpenAI's CLIP."""

    context_length: int = 256
    """Tokens L of a caption, start and end included; longer ones are cut."""
    vocab_size: int = 49408
    """At least that of the CLIP's tokenizer, which makes the tokens."""
    width: int = 2048
    """Width D of the tokens."""
    depth: int = 24
    """Number of Transformer blocks; 0: the embedded tokens as they are."""
    num_heads: int = 32
    """Attention heads; divides width."""

    def __post_init__(self) -> None:
        check_positive(self, "context_length", "vocab_size", "width", "num_heads")
        if self.depth < 0:
            raise InputError(f"depth {self.depth} must be 0 or more")
        if self.width % self.num_heads:
            raise InputError(f"num_heads {self.num_heads} must divide width {self.width}")


class TextStates(NamedTuple):
    """What the encoder makes of captions. No position is hidden: padding has a learned meaning."""

    states: Tensor
    """(B, L, D), normalised."""
    pooled: Tensor
    """(B, D): the last of them, which GLIDE adds to the timestep's embedding."""


class TextEncoder(nn.Module):
    """Token ids → states, by a Transformer without a causal or a padding mask.

    Where a caption has ended stands a learned vector for that position in place of a token. A caption of nothing but
    padding is GLIDE's empty text, for condition dropout and for guidance.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        length, width = config.context_length, config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.padding_embedding = nn.Parameter(torch.zeros(length, width))
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads) for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """CLIP's initialisation (Radford et al. 2021); padding begins like the other embeddings."""
        init_transformer(self, self.config.depth)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.padding_embedding, std=0.02)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return list(self.transformer_blocks)

    def forward(self, token_ids: Tensor, text_mask: Tensor) -> TextStates:
        """`token_ids` (B, L) int, `text_mask` (B, L) bool, True where there is text; ids elsewhere do not matter."""
        tokens = self.token_embedding(token_ids) + self.positional_embedding  # (B, L, D)
        tokens = torch.where(text_mask[..., None], tokens, self.padding_embedding)  # (B, L, D)
        for block in self.transformer_blocks:
            tokens = block(tokens, None)  # (B, L, D)
        states = self.norm_out(tokens)  # (B, L, D)
        return TextStates(states, states[:, -1])
