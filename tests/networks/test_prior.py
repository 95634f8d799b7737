"""The prior against diffusers' PriorTransformer."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import PriorTransformer
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.prior import Prior, PriorConfig, diffusers_config

CONFIG = PriorConfig(embed_dim=24, num_text_tokens=11, depth=3, num_heads=4, head_dim=10)


def draw_inputs(generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    lengths = torch.tensor([11, 5, 2])
    return {
        "x_t": torch.randn(3, 24, generator=generator, dtype=dtype),
        "t": torch.tensor([0, 417, 999]),
        "text_embed": torch.randn(3, 24, generator=generator, dtype=dtype),
        "text": torch.randn(3, 11, 24, generator=generator, dtype=dtype),
        "text_mask": torch.arange(11)[None] < lengths[:, None],
    }


def make_pair(
    parity: SimpleNamespace, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Prior, PriorTransformer]:
    ours, theirs = (
        Prior(CONFIG).to(dtype).eval(),
        PriorTransformer(**diffusers_config(CONFIG)).to(dtype).eval(),
    )
    parity.randomise(ours, generator)
    parity.same_keys(ours, theirs)
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@torch.no_grad()
def test_equals_prior_transformer(
    parity: SimpleNamespace, generator: torch.Generator, dtype: torch.dtype
) -> None:
    ours, theirs = make_pair(parity, generator, dtype)
    inputs = draw_inputs(generator, dtype)
    expected = theirs(
        inputs["x_t"], inputs["t"], inputs["text_embed"], inputs["text"], inputs["text_mask"]
    ).predicted_image_embedding
    parity.close(ours(**inputs), expected)


@torch.no_grad()
def test_padding_is_invisible(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours, _ = make_pair(parity, generator, torch.float64)
    inputs = draw_inputs(generator, torch.float64)
    before = ours(**inputs)
    inputs["text"][~inputs["text_mask"]] = 7.0
    assert torch.equal(ours(**inputs), before)


@torch.no_grad()
def test_denormalise_is_post_process_latents_and_inverts_normalise(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours, theirs = make_pair(parity, generator, torch.float64)
    z = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    parity.close(ours.denormalise(z), theirs.post_process_latents(z))
    parity.close(ours.normalise(ours.denormalise(z)), z)


def test_statistics_are_saved_but_not_trained() -> None:
    prior = Prior(CONFIG)
    assert {"clip_mean", "clip_std"} <= set(prior.state_dict())
    assert not {"clip_mean", "clip_std"} & {name for name, _ in prior.named_parameters()}
    assert torch.equal(prior.clip_mean, torch.zeros(1, 24)) and torch.equal(prior.clip_std, torch.ones(1, 24))


def test_begins_at_the_mean_and_passes_gradients(parity: SimpleNamespace, generator: torch.Generator) -> None:
    prior = Prior(CONFIG)
    inputs = draw_inputs(generator, torch.float32)
    output = prior(**inputs)
    assert torch.equal(output, torch.zeros_like(output))
    parity.randomise(prior, generator)
    prior(**inputs).square().sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys alike shifts every score of a row by the same amount: its gradient is zero.
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name


def test_a_bad_number_is_named() -> None:
    with pytest.raises(InputError, match="depth 0"):
        PriorConfig(depth=0)
