"""Attention over tokens (the prior) and over pixels with extra context (the decoder).

B batch, N tokens, D width, C channels, H W pixels, M context or memory tokens, K context width.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.networks.cache import KeyValues
from dalle2_train.networks.init import zero_init

# diffusers hides tokens by adding this to their scores, not minus infinity: a row hidden as a whole stays finite.
HIDDEN = -10000.0


def visibility_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention bias of a bool mask (any shape): 0 where True, `HIDDEN` where False."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, HIDDEN)


def split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """(B, N, D) → (B, heads, N, D / heads), a view."""
    return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, heads, N, D / heads) → (B, N, D)."""
    return tokens.transpose(1, 2).flatten(2)


class _Attention(nn.Module):
    """Multi-head attention with biased projections; the parameter names of diffusers' `Attention`."""

    def __init__(self, width: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.Sequential(nn.Linear(width, width), nn.Dropout(dropout))

    def attend(
        self, tokens: Tensor, memory: Tensor, bias: Tensor | None, seen: KeyValues | None = None
    ) -> Tensor:
        """`tokens` (B, N, D) look at `memory` (B, M, D), and at what was `seen` before it, which the memory then
        belongs to; `bias` broadcastable to (B, heads, N, M), or none."""
        sources = ((self.to_q, tokens), (self.to_k, memory), (self.to_v, memory))
        q, k, v = (split_heads(to(source), self.num_heads) for to, source in sources)
        if seen is not None:
            k, v = seen.append(k, v)
        bias = None if bias is None else bias.to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, heads, N, d)
        return self.to_out(merge_heads(attended))  # (B, N, D)


class SelfAttention(_Attention):
    """Tokens look at one another."""

    def forward(
        self, tokens: Tensor, bias: Tensor | None, seen: KeyValues | None = None, num_out: int | None = None
    ) -> Tensor:
        """`tokens` (B, N, D); `bias` broadcastable to (B, heads, N, N), added to the scores. Returns (B, N, D).

        With `seen` the tokens follow those that it knows, which they look at too: the bias has a column for each. With
        `num_out` only so many of the last tokens look, and come out; the bias has their rows.
        """
        looking = tokens if num_out is None else tokens[:, -num_out:]
        return self.attend(looking, tokens, bias, seen)


class CrossAttention(_Attention):
    """Tokens look at a memory of their own width, such as an encoded text."""

    def forward(self, tokens: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """`tokens` (B, N, D), `memory` (B, M, D); `bias` broadcastable to (B, heads, N, M). Returns (B, N, D)."""
        return self.attend(tokens, memory, bias)


class FeedForward(nn.Module):
    """Linear to 4 × width, exact GELU, dropout, linear back; the parameter names of diffusers' `FeedForward`."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(OrderedDict(proj=nn.Linear(width, 4 * width), gelu=nn.GELU())),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)  # (B, N, D)


class PixelAttention(nn.Module):
    """Residual self-attention of pixels whose keys and values are preceded by those of context tokens.

    Dhariwal & Nichol 2021's attention block with GLIDE's context; diffusers' `Attention` with `added_kv_proj_dim`.
    """

    def __init__(self, channels: int, head_dim: int, context_dim: int, num_groups: int, eps: float) -> None:
        super().__init__()
        self.num_heads = channels // head_dim
        self.group_norm = nn.GroupNorm(num_groups, channels, eps=eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.add_k_proj = nn.Linear(context_dim, channels)
        self.add_v_proj = nn.Linear(context_dim, channels)
        self.to_out = nn.Sequential(zero_init(nn.Linear(channels, channels)))

    def forward(self, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """`x` (B, C, H, W), `context` (B, M, K), `bias` (B, 1, 1, M) added to the context's scores."""
        # On channels_last memory both transposes are views: the pixels already lie as tokens.
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        q = split_heads(self.to_q(pixels), self.num_heads)  # (B, heads, HW, d)
        k = split_heads(torch.cat([self.add_k_proj(context), self.to_k(pixels)], dim=1), self.num_heads)
        v = split_heads(torch.cat([self.add_v_proj(context), self.to_v(pixels)], dim=1), self.num_heads)
        bias = F.pad(bias.to(q.dtype), (0, pixels.shape[1]))  # (B, 1, 1, M + HW), pixels are always visible
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, heads, HW, d)
        out = self.to_out(merge_heads(attended))  # (B, HW, C)
        return x + out.transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C, H, W)
