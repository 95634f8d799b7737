"""The pre-norm Transformer blocks that the networks over tokens are stacks of, and how they begin.

B batch, N tokens, M memory tokens, D width.
"""

from torch import Tensor, nn

from dalle2_train.networks.attention import CrossAttention, FeedForward, SelfAttention
from dalle2_train.networks.cache import KeyValues

_LAST_OF_BRANCHES = ("attn1.to_out.0.weight", "attn2.to_out.0.weight", "ff.net.2.weight")


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward; the parameter names of diffusers' `BasicTransformerBlock`, without norm2."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, num_heads, dropout)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, dropout)

    def forward(
        self, tokens: Tensor, bias: Tensor | None, seen: KeyValues | None = None, num_out: int | None = None
    ) -> Tensor:
        """`tokens` (B, N, D); `bias` broadcastable to (B, heads, N, N), added to the scores. Returns (B, N, D).

        `seen`, `num_out`: as in `SelfAttention`; with the latter (B, num_out, D) come out.
        """
        looked = self.attn1(self.norm1(tokens), bias, seen, num_out)
        tokens = (tokens if num_out is None else tokens[:, -num_out:]) + looked
        return tokens + self.ff(self.norm3(tokens))


class CrossAttentionBlock(nn.Module):
    """A block that also looks at a memory, between the two; diffusers' `BasicTransformerBlock` as a whole."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = SelfAttention(width, num_heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = CrossAttention(width, num_heads, dropout)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, dropout)

    def forward(
        self, tokens: Tensor, bias: Tensor | None, memory: Tensor, memory_bias: Tensor | None
    ) -> Tensor:
        """`TransformerBlock.forward`, and `memory` (B, M, D) with its bias, broadcastable to (B, heads, N, M)."""
        tokens = tokens + self.attn1(self.norm1(tokens), bias)  # (B, N, D)
        tokens = tokens + self.attn2(self.norm2(tokens), memory, memory_bias)  # (B, N, D)
        return tokens + self.ff(self.norm3(tokens))  # (B, N, D)


def init_transformer(network: nn.Module, depth: int) -> None:
    """CLIP's initialisation (Radford et al. 2021) of every linear layer in `network`: normal with 1/√fan-in, what
    enters the residual stream also divided by √(2 depth); biases are zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, weight in network.named_parameters():
        if name.endswith(_LAST_OF_BRANCHES):
            nn.init.normal_(weight, std=(2 * depth * weight.shape[1]) ** -0.5)
