"""Prior and decoder with a text encoder of their own: behind it they are what diffusers computes."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks import decoder, prior
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.text_encoder import TextEncoder, TextEncoderConfig

# As wide as the embeddings, so that diffusers' projections of text can read its states.
OWN = TextEncoderConfig(context_length=6, vocab_size=30, width=24, depth=1, num_heads=2)
PRIOR = PriorConfig(embed_dim=24, num_text_tokens=6, depth=2, num_heads=2, head_dim=8, text_encoder=OWN)
AR_PRIOR = ArPriorConfig(24, 6, num_dims=4, num_buckets=8, depth=2, num_heads=2, head_dim=8, text_encoder=OWN)
DECODER = DecoderConfig(
    8, (16, 32), 1, (False, True), head_dim=8, embed_dim=24, num_groups=8, text_encoder=OWN
)


def draw_text(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(CLIP's embedding, token ids, mask) of captions of six tokens, of two and of none."""
    text_embed = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    token_ids = torch.randint(0, 30, (3, 6), generator=generator)
    return text_embed, token_ids, torch.arange(6) < torch.tensor([6, 2, 0])[:, None]


def draw_prior_inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
    x_t = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    return x_t, torch.tensor([0, 417, 999]), *draw_text(generator)


def draw_decoder_inputs(generator: torch.Generator) -> tuple[Tensor, ...]:
    x_t = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64)
    image_embed = torch.randn(3, 24, generator=generator, dtype=torch.float64)
    return x_t, torch.tensor([0, 417, 999]), image_embed, *draw_text(generator)


@torch.no_grad()
def test_the_prior_is_prior_transformer_on_its_states(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours = Prior(PRIOR).double().eval()
    parity.randomise(ours, generator)
    theirs = PriorTransformer(**prior.diffusers_config(PRIOR)).double().eval()
    mine = {name: value for name, value in ours.state_dict().items() if not name.startswith("text_encoder.")}
    theirs.load_state_dict(mine)
    x_t, t, text_embed, token_ids, text_mask = draw_prior_inputs(generator)
    assert ours.text_encoder is not None
    states = ours.text_encoder(token_ids, text_mask).states
    everything = torch.ones_like(text_mask)
    expected = theirs(x_t, t, text_embed, states, everything).predicted_image_embedding
    parity.close(ours(x_t, t, text_embed, token_ids, text_mask), expected)


@torch.no_grad()
def test_the_decoder_is_the_unet_on_its_states_and_reads_no_text_embedding_of_clip(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours = Decoder(DECODER).double().eval()
    parity.randomise(ours, generator)
    unet = UNet2DConditionModel(**decoder.diffusers_config(DECODER)).double().eval()
    unet.load_state_dict(ours.unet.state_dict())
    text_proj = UnCLIPTextProjModel(**decoder.diffusers_text_proj_config(DECODER)).double().eval()
    text_proj.load_state_dict(ours.text_proj.state_dict())
    x_t, t, image_embed, text_embed, token_ids, text_mask = draw_decoder_inputs(generator)
    assert ours.text_encoder is not None
    states, pooled = ours.text_encoder(token_ids, text_mask)
    context, time_shift = text_proj(
        image_embeddings=image_embed,
        prompt_embeds=pooled,
        text_encoder_hidden_states=states,
        do_classifier_free_guidance=False,
    )
    expected = unet(x_t, t, encoder_hidden_states=context, class_labels=time_shift).sample
    output = ours(x_t, t, image_embed, text_embed, token_ids, text_mask)
    parity.close(output, expected)
    assert torch.equal(ours(x_t, t, image_embed, text_embed[:, :0], token_ids, text_mask), output)


@pytest.mark.parametrize("family", ["prior", "decoder"])
def test_text_read_once_is_text_read_at_every_step_and_all_of_the_encoder_learns(
    parity: SimpleNamespace, generator: torch.Generator, family: str
) -> None:
    network = (Prior(PRIOR) if family == "prior" else Decoder(DECODER)).double()
    parity.randomise(network, generator)
    inputs = (draw_prior_inputs if family == "prior" else draw_decoder_inputs)(generator)
    output = network(*inputs)
    assert torch.equal(network.predict(*inputs[:-3], *network.read(*inputs[-3:])), output)
    output.square().sum().backward()
    assert network.text_encoder is not None
    for name, parameter in network.text_encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or name.endswith("to_k.bias"), name
    assert set(network.text_encoder.blocks) < set(network.blocks)


@pytest.mark.parametrize(("network_type", "config"), [(Prior, PRIOR), (ArPrior, AR_PRIOR)])
def test_a_text_encoder_begins_as_it_does_alone(
    network_type: type, config: PriorConfig | ArPriorConfig
) -> None:
    """It neither changes the prior's first weights nor is touched when those are drawn again."""
    torch.manual_seed(0)
    network = network_type(config)
    torch.manual_seed(0)
    plain, alone = network_type(dataclasses.replace(config, text_encoder=None)), TextEncoder(OWN)
    first = {name: value.clone() for name, value in network.state_dict().items()}
    expected = plain.state_dict() | {f"text_encoder.{name}": v for name, v in alone.state_dict().items()}
    assert first.keys() == expected.keys()
    assert all(torch.equal(first[name], expected[name]) for name in expected)
    network.reset_parameters()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, first[name])}
    assert "transformer_blocks.0.attn1.to_q.weight" in changed
    assert not [name for name in changed if name.startswith("text_encoder.")]


def test_states_are_told_from_tokens_by_what_is_called_and_not_by_their_type(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    """Token ids as a float tensor would be an error, not states."""
    for network, inputs in ((Prior(PRIOR), draw_prior_inputs), (Decoder(DECODER), draw_decoder_inputs)):
        *given, token_ids, text_mask = inputs(generator)
        with pytest.raises(RuntimeError, match="Long, Int"):
            network.double()(*given, token_ids.double(), text_mask)


def test_a_context_that_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"num_text_tokens 5 must be 6, text_encoder.context_length"):
        dataclasses.replace(PRIOR, num_text_tokens=5)
