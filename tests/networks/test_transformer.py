"""The blocks of the networks over tokens against diffusers' BasicTransformerBlock."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from dalle2_train.networks.attention import visibility_bias
from dalle2_train.networks.transformer import CrossAttentionBlock, TransformerBlock, init_transformer

WIDTH, HEADS = 24, 3


def theirs(cross: bool) -> BasicTransformerBlock:
    """In the form that `PriorTransformer` uses, with cross-attention or without."""
    return BasicTransformerBlock(
        WIDTH,
        HEADS,
        WIDTH // HEADS,
        activation_fn="gelu",
        attention_bias=True,
        cross_attention_dim=WIDTH if cross else None,
    )


def masks() -> tuple[Tensor, Tensor]:
    """Of (3, 5) tokens and of (3, 7) memory tokens."""
    tokens, memory = torch.tensor([5, 3, 1]), torch.tensor([7, 2, 4])
    return torch.arange(5) < tokens[:, None], torch.arange(7) < memory[:, None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_equals_basic_transformer_block(
    parity: SimpleNamespace, generator: torch.Generator, dtype: torch.dtype
) -> None:
    tokens = torch.randn(3, 5, WIDTH, generator=generator, dtype=dtype)
    memory = torch.randn(3, 7, WIDTH, generator=generator, dtype=dtype)
    bias, memory_bias = (visibility_bias(mask, dtype)[:, None, None, :] for mask in masks())
    plain, cross = TransformerBlock(WIDTH, HEADS), CrossAttentionBlock(WIDTH, HEADS)
    references = []
    for ours, reference in ((plain, theirs(False)), (cross, theirs(True))):
        parity.randomise(ours.to(dtype).eval(), generator)
        parity.same_keys(ours, reference.to(dtype).eval())
        references.append(reference)
    parity.close(plain(tokens, bias), references[0](tokens, attention_mask=bias[:, 0]))
    expected = references[1](
        tokens,
        attention_mask=bias[:, 0],
        encoder_hidden_states=memory,
        encoder_attention_mask=memory_bias[:, 0],
    )
    parity.close(cross(tokens, bias, memory, memory_bias), expected)


def test_what_enters_the_residual_stream_begins_smaller_the_deeper_the_network_is() -> None:
    torch.manual_seed(0)
    depth, width = 8, 256
    blocks = nn.ModuleList(CrossAttentionBlock(width, 4) for _ in range(2))
    init_transformer(blocks, depth)
    for name, parameter in blocks.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 2:
            ends = name.endswith(("to_out.0.weight", "ff.net.2.weight"))
            expected = (parameter.shape[1] * (2 * depth if ends else 1)) ** -0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.02), name
