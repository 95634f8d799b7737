"""The direct baseline against torch's own Transformer decoder, and its patches against loops."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch_transformers import torchs_decoder

from dalle2_train.errors import InputError
from dalle2_train.networks.direct import Direct, DirectConfig, assemble
from dalle2_train.networks.text_encoder import TextEncoderConfig

TEXT = TextEncoderConfig(context_length=7, vocab_size=40, width=24, depth=2, num_heads=3)
CONFIG = DirectConfig(TEXT, image_size=8, patch_size=2, depth=3, num_heads=4)


def captions() -> tuple[Tensor, Tensor]:
    """Token ids and mask (3, 7)."""
    ids = torch.randint(0, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(7) < torch.tensor([7, 4, 2])[:, None]


def by_loops(pixels: Tensor, side: int, patch_size: int) -> Tensor:
    """Patch by patch, channel by channel, row by row."""
    image = torch.zeros(len(pixels), 3, side * patch_size, side * patch_size, dtype=pixels.dtype)
    for patch in range(side * side):
        top, left = patch // side * patch_size, patch % side * patch_size
        for place in range(3 * patch_size**2):
            channel, row, column = (
                place // patch_size**2,
                place // patch_size % patch_size,
                place % patch_size,
            )
            image[:, channel, top + row, left + column] = pixels[:, patch, place]
    return image


@torch.no_grad()
def test_equals_torchs_decoder_over_the_encoded_text(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours = Direct(CONFIG).double().eval()
    parity.randomise(ours, generator)
    text = ours.text_encoder(*captions()).states
    patches = torchs_decoder(ours.transformer_blocks, 24, 4)(ours.patch_queries.expand(3, -1, -1), text)
    pixels = ours.to_pixels(ours.norm_out(patches))
    parity.close(ours(*captions()), by_loops(pixels, 4, 2))


def test_patches_lie_where_loops_put_them() -> None:
    pixels = torch.randn(2, 9, 3 * 16)
    assert torch.equal(assemble(pixels, 4), by_loops(pixels, 3, 4))


def test_begins_grey_and_passes_gradients(parity: SimpleNamespace, generator: torch.Generator) -> None:
    network = Direct(CONFIG)
    output = network(*captions())
    assert output.shape == (3, 3, 8, 8) and not output.any()
    parity.randomise(network, generator)
    network(*captions()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys alike shifts every score of a row by the same amount: its gradient is zero.
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_size": 3}, "patch_size 3 must divide image_size 8"),
        ({"depth": 0}, "depth 0 must be positive"),
        ({"num_heads": 5}, "num_heads 5 must divide text_encoder.width 24"),
    ],
)
def test_a_bad_shape_is_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONFIG, **change)
