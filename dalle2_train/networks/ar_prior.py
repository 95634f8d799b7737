"""The autoregressive prior: caption → codes of CLIP's image embedding, one after another, by a causal Transformer.

§2.2 of unCLIP. B batch, E embedding, L text length, S width of the text's states, K codes, V buckets of each, D width,
P = L + 2 tokens before the codes, n new tokens.
"""

from dataclasses import dataclass
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.errors import InputError
from dalle2_train.networks.attention import HIDDEN, visibility_bias
from dalle2_train.networks.cache import KeyValueCache
from dalle2_train.networks.checks import check_positive
from dalle2_train.networks.embed_codes import EmbedCodes
from dalle2_train.networks.init import zero_init
from dalle2_train.networks.prior_shape import PriorShape, without_text_encoder
from dalle2_train.networks.text_encoder import TextEncoder
from dalle2_train.networks.transformer import TransformerBlock, init_transformer


@dataclass(frozen=True)
class ArPriorConfig(PriorShape):
    """The autoregressive prior's shape; defaults are the paper's for a CLIP of Karlo's size. Its context is
    num_text_tokens + num_dims + 1."""

    depth: int = 24
    """Number of Transformer blocks."""
    num_heads: int = 26
    """Attention heads."""
    num_dims: int = 319
    """Principal components of the image embedding that are predicted, the one of the largest variance first."""
    num_buckets: int = 1024
    """Values V that a code can take."""
    num_dot_buckets: int = 32
    """Equally frequent buckets of the similarity of picture and caption."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "num_dims")
        for name in ("num_buckets", "num_dot_buckets"):
            if getattr(self, name) < 2:
                raise InputError(f"{name} {getattr(self, name)} must be at least 2")
        if self.num_dims > self.embed_dim:
            raise InputError(
                f"num_dims {self.num_dims}: an embedding of embed_dim {self.embed_dim} has no more components"
            )

    @property
    def num_prefix_tokens(self) -> int:
        """P: the text, its embedding and the dot product."""
        return self.num_text_tokens + 2

    @property
    def context_length(self) -> int:
        """Tokens of a whole sequence; the last code is predicted and never read."""
        return self.num_prefix_tokens + self.num_dims - 1


class ArPrior(nn.Module):
    """The distribution of each code of an image embedding, given the caption and the codes before.

    `embed_codes` turns embeddings into codes and back. `dot_edges` (ascending) part the similarities of pictures and
    captions into equally frequent buckets. Both are buffers: statistics of the data, which no optimizer touches.
    """

    causal_bias: Tensor
    dot_edges: Tensor

    def __init__(self, config: ArPriorConfig) -> None:
        super().__init__()
        self.config = config
        width, length = config.width, config.context_length
        self.embed_codes = EmbedCodes(config.embed_dim, config.num_dims, config.num_buckets)
        self.register_buffer("dot_edges", torch.linspace(-1, 1, config.num_dot_buckets + 1)[1:-1])
        self.encoder_hidden_states_proj = nn.Linear(config.text_width, width)
        self.embedding_proj = nn.Linear(config.embed_dim, width)
        self.dot_embedding = nn.Embedding(config.num_dot_buckets + 1, width)
        self.code_embedding = nn.Embedding(config.num_buckets, width)
        self.positional_embedding = nn.Parameter(torch.zeros(1, length, width))
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, config.dropout) for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        # Without a bias, whose addition would return a view: FSDP2 warns of views that leave a network.
        self.proj_to_buckets = nn.Linear(width, config.num_buckets, bias=False)
        self.register_buffer("causal_bias", torch.full((length, length), HIDDEN).triu(1), persistent=False)
        self.reset_parameters()
        self.text_encoder = None if config.text_encoder is None else TextEncoder(config.text_encoder)

    def reset_parameters(self) -> None:
        """`init_transformer`; the last layer is zero, so that at first all values are equally likely.

        A text encoder stays as it is: it has a `reset_parameters` of its own.
        """
        init_transformer(without_text_encoder(self), self.config.depth)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.dot_embedding.weight, std=0.02)
        nn.init.normal_(self.code_embedding.weight, std=0.02)
        zero_init(self.proj_to_buckets)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return [*(self.text_encoder.blocks if self.text_encoder else []), *self.transformer_blocks]

    @property
    def unknown_dot(self) -> int:
        """The bucket of a picture without a caption."""
        return self.config.num_dot_buckets

    @torch.no_grad()
    def dot_bucket(self, image_embed: Tensor, text_embed: Tensor) -> Tensor:
        """Buckets (B,) int64 of the cosines of embeddings (B, E): the dot products of a CLIP that normalises them."""
        cosines = F.cosine_similarity(image_embed, text_embed.to(image_embed), dim=-1)  # (B,)
        return torch.bucketize(cosines.to(self.dot_edges.dtype), self.dot_edges)

    def forward(
        self,
        codes: Tensor,
        dot_bucket: Tensor,
        text_embed: Tensor,
        text: Tensor,
        text_mask: Tensor,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits (B, k + 1, V) of the code after none, one … all of `codes` (B, k), k < K, the first ones in order.

        `dot_bucket` (B,) int, `text_embed` (B, E), `text` (B, L, S) states, or, with a text encoder, token ids (B, L);
        `text_mask` (B, L) bool, True where there is text. With a `cache`, which belongs to one such text: the logits
        (B, n, V) after those tokens alone that it has not seen, and it has seen them from then on.
        """
        num_seen = 0 if cache is None else cache.num_tokens
        if num_seen == 0:
            prefix, visible = self.prefix(dot_bucket, text_embed, text, text_mask)  # (B, P, D), (B, P)
            tokens = torch.cat([prefix, self.code_embedding(codes)], dim=1)  # (B, n, D)
            visible = F.pad(visible, (0, codes.shape[1]), value=True)  # (B, N)
        else:
            assert cache is not None and cache.visible is not None
            tokens = self.code_embedding(codes[:, num_seen - self.config.num_prefix_tokens :])  # (B, n, D)
            visible = F.pad(cache.visible, (0, tokens.shape[1]), value=True)  # (B, N)
        num_tokens = visible.shape[1]
        tokens = tokens + self.positional_embedding[:, num_seen:num_tokens].to(tokens.dtype)
        bias = visibility_bias(visible, tokens.dtype)[:, None, None, :]  # (B, 1, 1, N)
        bias = bias + self.causal_bias[num_seen:num_tokens, :num_tokens]  # (B, 1, n, N)
        for block, layer in zip(
            self.transformer_blocks, cache.layers if cache is not None else repeat(None), strict=False
        ):
            tokens = block(tokens, bias, layer)  # (B, n, D)
        if cache is not None:
            cache.visible = visible
        # The prefix but for its last token predicts nothing.
        return self.proj_to_buckets(self.norm_out(tokens[:, -codes.shape[1] - 1 :]))

    def prefix(
        self, dot_bucket: Tensor, text_embed: Tensor, text: Tensor, text_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`forward`'s conditions as tokens (B, P, D), and which of them may be looked at (B, P)."""
        if self.text_encoder is not None:
            text, text_mask = self.text_encoder(text, text_mask).states, torch.ones_like(text_mask)
        text = self.encoder_hidden_states_proj(text)  # (B, L, D)
        added = [self.embedding_proj(text_embed), self.dot_embedding(dot_bucket).to(text.dtype)]  # 2 × (B, D)
        tokens = torch.cat([text, torch.stack(added, dim=1)], dim=1)  # (B, P, D)
        return tokens, F.pad(text_mask, (0, 2), value=True)
