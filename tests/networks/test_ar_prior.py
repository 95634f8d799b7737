"""The autoregressive prior: what each code may depend on, its cache, and torch's own Transformer."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch_transformers import torchs_encoder

from dalle2_train.errors import InputError
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.cache import KeyValueCache
from dalle2_train.networks.text_encoder import TextEncoderConfig

CONFIG = ArPriorConfig(
    embed_dim=24,
    num_text_tokens=7,
    num_dims=9,
    num_buckets=12,
    num_dot_buckets=6,
    depth=2,
    num_heads=3,
    head_dim=8,
)
OWN_TEXT = TextEncoderConfig(context_length=7, vocab_size=30, width=20, depth=1, num_heads=2)


def draw_inputs(generator: torch.Generator) -> dict[str, Tensor]:
    return {
        "codes": torch.randint(0, 12, (3, 8), generator=generator),
        "dot_bucket": torch.tensor([0, 3, 6]),
        "text_embed": torch.randn(3, 24, generator=generator, dtype=torch.float64),
        "text": torch.randn(3, 7, 24, generator=generator, dtype=torch.float64),
        "text_mask": torch.arange(7)[None] < torch.tensor([7, 4, 1])[:, None],
    }


def build(
    parity: SimpleNamespace, generator: torch.Generator, text_encoder: TextEncoderConfig | None = None
) -> tuple[ArPrior, dict[str, Tensor]]:
    config = ArPriorConfig(**{**vars(CONFIG), "text_encoder": text_encoder})
    network = ArPrior(config).double().eval()
    parity.randomise(network, generator)
    inputs = draw_inputs(generator)
    if text_encoder is not None:
        inputs["text"] = torch.randint(0, 30, (3, 7), generator=generator)
    return network, inputs


@torch.no_grad()
def test_equals_torchs_transformer(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours, inputs = build(parity, generator)
    theirs = torchs_encoder(ours.transformer_blocks, ours.norm_out, CONFIG.num_heads)
    text = ours.encoder_hidden_states_proj(inputs["text"])
    pair = [ours.embedding_proj(inputs["text_embed"]), ours.dot_embedding(inputs["dot_bucket"])]
    tokens = torch.cat([text, torch.stack(pair, dim=1), ours.code_embedding(inputs["codes"])], dim=1)
    hidden = torch.cat([~inputs["text_mask"], torch.zeros(3, 10, dtype=torch.bool)], dim=1)
    future = torch.ones(17, 17, dtype=torch.bool).triu(1)
    read = theirs(tokens + ours.positional_embedding, mask=future, src_key_padding_mask=hidden)
    parity.close(ours(**inputs), ours.proj_to_buckets(read[:, 8:]))


def test_a_code_depends_on_the_prefix_and_on_earlier_codes_alone(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    network, inputs = build(parity, generator)
    rows: list[Tensor] = []

    def listen(_module: nn.Module, _args: object, output: Tensor) -> None:
        output.requires_grad_().retain_grad()
        rows.append(output)

    network.requires_grad_(False)
    network.code_embedding.register_forward_hook(listen)
    network.embedding_proj.register_forward_hook(listen)
    network.dot_embedding.register_forward_hook(listen)
    for place in range(9):
        rows.clear()
        network(**inputs)[:, place].square().sum().backward()
        by_name = {tuple(row.shape[1:]): row for row in rows if row.ndim == 3}
        codes = by_name[(8, CONFIG.width)].grad
        assert codes is not None
        reach = codes.abs().amax(dim=-1) > 0  # (B, 8)
        assert torch.equal(reach, (torch.arange(8) < place).expand(3, 8)), place
        assert all(row.grad is not None and (row.grad != 0).any(-1).all() for row in rows if row.ndim == 2)


@pytest.mark.parametrize("text_encoder", [None, OWN_TEXT])
@torch.no_grad()
def test_a_cache_changes_nothing(
    parity: SimpleNamespace, generator: torch.Generator, text_encoder: TextEncoderConfig | None
) -> None:
    network, inputs = build(parity, generator, text_encoder)
    codes = inputs.pop("codes")
    whole = network(codes, **inputs)
    cache = KeyValueCache(CONFIG.depth)
    parts = [network(codes[:, :count], **inputs, cache=cache) for count in (0, 1, 2, 5, 8)]
    assert [part.shape[1] for part in parts] == [1, 1, 1, 3, 3]
    assert cache.num_tokens == CONFIG.context_length == 17
    assert (torch.cat(parts, dim=1) - whole).abs().max() <= 1e-12 * whole.abs().max()


@torch.no_grad()
def test_padding_is_invisible(parity: SimpleNamespace, generator: torch.Generator) -> None:
    network, inputs = build(parity, generator)
    before = network(**inputs)
    inputs["text"][~inputs["text_mask"]] = 7.0
    assert torch.equal(network(**inputs), before)


def test_it_begins_with_equal_odds_and_passes_gradients(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    network, inputs = build(parity, generator, OWN_TEXT)
    fresh = ArPrior(network.config).double()
    assert torch.equal(fresh(**inputs), torch.zeros(3, 9, 12, dtype=torch.float64))
    network(**inputs).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys alike shifts every score of a row by the same amount: its gradient is zero.
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name


def test_similarity_is_put_in_buckets(parity: SimpleNamespace, generator: torch.Generator) -> None:
    network, inputs = build(parity, generator)
    network.dot_edges.copy_(torch.tensor([-0.5, 0.0, 0.25, 0.5, 0.99]))
    text_embed = inputs["text_embed"]
    other = torch.linalg.qr(text_embed.T)[0].T  # orthonormal, the first along the first text
    images = torch.stack([3 * text_embed[0], other[1], -text_embed[2]])
    texts = torch.stack([text_embed[0], text_embed[0], text_embed[2]])
    assert network.dot_bucket(images, texts).tolist() == [5, int(images[1] @ texts[1] > 0) + 1, 0]
    assert network.unknown_dot == 6


def test_statistics_are_saved_and_not_trained(parity: SimpleNamespace, generator: torch.Generator) -> None:
    network, _ = build(parity, generator)
    statistics = {f"embed_codes.{name}" for name in ("mean", "directions", "std", "levels", "left_out")}
    statistics |= {"dot_edges"}
    assert statistics <= set(network.state_dict())
    assert not statistics & {name for name, _ in network.named_parameters()}
    assert "causal_bias" not in network.state_dict()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"depth": 0}, "depth 0"),
        ({"num_dims": 25}, "num_dims 25"),
        ({"num_buckets": 1}, "num_buckets 1"),
        ({"text_encoder": OWN_TEXT, "num_text_tokens": 9}, "num_text_tokens 9 must be 7"),
    ],
)
def test_a_bad_number_is_named(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ArPriorConfig(**{**vars(CONFIG), **changes})


def test_the_paper_s_context_holds_64_words_and_its_319_codes() -> None:
    assert ArPriorConfig(num_text_tokens=64).context_length == 384
