"""The trained text encoder against torch's own Transformer, and GLIDE's way with padding."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch_transformers import torchs_encoder

from dalle2_train.errors import InputError
from dalle2_train.networks.text_encoder import TextEncoder, TextEncoderConfig

CONFIG = TextEncoderConfig(context_length=7, vocab_size=30, width=24, depth=2, num_heads=3)


def build(
    parity: SimpleNamespace, generator: torch.Generator, config: TextEncoderConfig = CONFIG
) -> TextEncoder:
    encoder = TextEncoder(config).double().eval()
    parity.randomise(encoder, generator)
    return encoder


def draw_text(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Captions of seven tokens, of three and of none."""
    token_ids = torch.randint(0, 30, (3, 7), generator=generator)
    return token_ids, torch.arange(7) < torch.tensor([7, 3, 0])[:, None]


@torch.no_grad()
def test_equals_torchs_transformer(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours = build(parity, generator)
    token_ids, text_mask = draw_text(generator)
    table, positions, padding = (
        ours.token_embedding.weight,
        ours.positional_embedding,
        ours.padding_embedding,
    )
    shown = torch.stack([
        torch.stack([
            table[token] + positions[place] if place < length else padding[place]
            for place, token in enumerate(row)
        ])
        for row, length in zip(token_ids.tolist(), text_mask.sum(dim=1).tolist(), strict=True)
    ])  # fmt: skip
    states, pooled = ours(token_ids, text_mask)
    theirs = torchs_encoder(ours.transformer_blocks, ours.norm_out, CONFIG.num_heads)
    parity.close(states, theirs(shown))
    assert torch.equal(pooled, states[:, -1])


@torch.no_grad()
def test_without_blocks_states_are_the_embedded_tokens(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours = build(parity, generator, TextEncoderConfig(7, 30, 24, depth=0, num_heads=3))
    token_ids, _ = draw_text(generator)
    expected = ours.norm_out(ours.token_embedding.weight[token_ids] + ours.positional_embedding)
    parity.close(ours(token_ids, torch.ones(3, 7, dtype=torch.bool)).states, expected)


@torch.no_grad()
def test_ids_of_padding_do_not_matter_and_all_padding_is_one_text(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours = build(parity, generator)
    token_ids, text_mask = draw_text(generator)
    states = ours(token_ids, text_mask).states
    others = torch.where(text_mask, token_ids, (token_ids + 11) % 30)
    assert torch.equal(ours(others, text_mask).states, states)
    empty = ours(token_ids[:1], torch.zeros(1, 7, dtype=torch.bool)).states
    torch.testing.assert_close(empty[0], states[2])


def test_every_parameter_begins_random_and_has_a_gradient(generator: torch.Generator) -> None:
    encoder = TextEncoder(CONFIG)
    encoder(*draw_text(generator)).states.square().sum(dim=-1).pow(2).mul(torch.arange(7)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys alike shifts every score of a row by the same amount: its gradient is zero.
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name
        if parameter.ndim > 1:
            assert parameter.std() > 1e-3, name
    assert encoder.blocks == list(encoder.transformer_blocks)


def test_it_learns_to_tell_at_the_last_place_what_stood_first(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    encoder, head = TextEncoder(CONFIG), nn.Linear(CONFIG.width, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        """(logits (B, 4), the right answers (B,)), of captions of one to six tokens."""
        token_ids = torch.randint(0, 4, (count, 7), generator=generator)
        lengths = torch.randint(1, 7, (count, 1), generator=generator)
        return head(encoder(token_ids, torch.arange(7) < lengths).pooled), token_ids[:, 0]

    with torch.no_grad():
        logits, first = draw(500)
    assert (logits.argmax(dim=1) == first).float().mean() < 0.5
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(*draw(64)).backward()
        optimizer.step()
    with torch.no_grad():
        logits, first = draw(500)
    assert (logits.argmax(dim=1) == first).float().mean() > 0.95


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"num_heads": 5}, "num_heads 5 must divide width 24"), ({"depth": -1}, "depth -1"), ({"width": 0}, "width 0")],
)  # fmt: skip
def test_a_bad_number_is_named(changes: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        TextEncoderConfig(**{"context_length": 7, "vocab_size": 30, "width": 24, "num_heads": 3, **changes})
