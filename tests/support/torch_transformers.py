"""torch's own pre-norm Transformers with the weights of our blocks."""

from collections.abc import Iterable

import torch
from torch import nn

from dalle2_train.networks.transformer import CrossAttentionBlock


def torchs_encoder(blocks: nn.ModuleList, norm: nn.LayerNorm, num_heads: int) -> nn.TransformerEncoder:
    """Our `TransformerBlock`s, and the norm behind them, in float64 and eval mode."""
    width = norm.normalized_shape[0]
    layer = nn.TransformerEncoderLayer(
        width, num_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    theirs = nn.TransformerEncoder(
        layer, len(blocks), nn.LayerNorm(width), enable_nested_tensor=False
    ).double()
    theirs.norm.load_state_dict(norm.state_dict())  # pyright: ignore[reportOptionalMemberAccess]
    _copy_all(blocks, theirs.layers)
    return theirs.eval()


def torchs_decoder(blocks: nn.ModuleList, width: int, num_heads: int) -> nn.TransformerDecoder:
    """Our `CrossAttentionBlock`s, in float64 and eval mode."""
    layer = nn.TransformerDecoderLayer(
        width, num_heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    theirs = nn.TransformerDecoder(layer, len(blocks)).double()
    _copy_all(blocks, theirs.layers)
    return theirs.eval()


def _copy_all(blocks: Iterable[nn.Module], layers: Iterable[nn.Module]) -> None:
    for block, layer in zip(blocks, layers, strict=True):
        _copy(block, layer)


@torch.no_grad()
def _copy(ours: nn.Module, theirs: nn.Module) -> None:
    """Their norms are numbered in the order of use, ours as in diffusers."""
    attentions, norms = {"attn1": "self_attn"}, {"norm1": "norm1", "norm3": "norm2"}
    if isinstance(ours, CrossAttentionBlock):
        attentions["attn2"], norms = "multihead_attn", {"norm1": "norm1", "norm2": "norm2", "norm3": "norm3"}
    for name, their_name in attentions.items():
        attention, copy = getattr(ours, name), getattr(theirs, their_name)
        for part in ("weight", "bias"):
            rows = [getattr(attention.get_submodule(f"to_{of}"), part) for of in "qkv"]
            getattr(copy, f"in_proj_{part}").copy_(torch.cat(rows))
        copy.out_proj.load_state_dict(attention.to_out[0].state_dict())
    for name, their_name in {**norms, "ff.net.0.proj": "linear1", "ff.net.2": "linear2"}.items():
        theirs.get_submodule(their_name).load_state_dict(ours.get_submodule(name).state_dict())
