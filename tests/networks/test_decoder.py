"""The decoder against diffusers' UnCLIPTextProjModel and UNet2DConditionModel, called as UnCLIPPipeline calls them."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.networks.decoder import (
    Decoder,
    DecoderConfig,
    diffusers_config,
    diffusers_text_proj_config,
    unexportable_text_lengths,
)
from dalle2_train.networks.text_projection import plain_state
from dalle2_train.networks.whitening import Whitening, zca

NULL = "learned_classifier_free_guidance_embeddings"

KARLO_LIKE = DecoderConfig(
    image_size=16,
    channels=(32, 64, 96, 64),
    num_resnets=2,
    attention=(False, True, True, True),
    head_dim=16,
    embed_dim=20,
    context_dim=28,
)
OTHERS = [
    replace(KARLO_LIKE, channels=(32, 64), attention=(False, False), num_resnets=1, context_dim=None),
    replace(
        KARLO_LIKE,
        channels=(64, 32, 32),
        attention=(True, False, True),
        num_resnets=3,
        num_extra_tokens=2,
        time_dim=48,
        num_groups=8,
    ),
]


def draw_inputs(config: DecoderConfig, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    size, embed_dim = config.image_size, config.embed_dim
    return {
        "x_t": randn(3, 3, size, size),
        "t": torch.tensor([0, 417, 999]),
        "image_embed": randn(3, embed_dim),
        "text_embed": randn(3, embed_dim),
        "text": randn(3, 9, embed_dim),
        "text_mask": torch.arange(9)[None] < torch.tensor([9, 4, 1])[:, None],
    }


def make_pair(
    parity: SimpleNamespace, config: DecoderConfig, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Decoder, UNet2DConditionModel, UnCLIPTextProjModel]:
    ours = Decoder(config).to(dtype).eval()
    unet = UNet2DConditionModel(**diffusers_config(config)).to(dtype).eval()
    text_proj = UnCLIPTextProjModel(**diffusers_text_proj_config(config)).to(dtype).eval()
    parity.randomise(ours, generator)
    parity.same_keys(ours.unet, unet)
    parity.same_keys(ours.text_proj, text_proj)
    return ours, unet, text_proj


def run_theirs(
    unet: UNet2DConditionModel,
    text_proj: UnCLIPTextProjModel,
    inputs: dict[str, Tensor],
    guided: bool = False,
) -> Tensor:
    context, time_shift = text_proj(
        image_embeddings=inputs["image_embed"],
        prompt_embeds=inputs["text_embed"],
        text_encoder_hidden_states=inputs["text"],
        do_classifier_free_guidance=guided,
    )
    mask = F.pad(inputs["text_mask"], (text_proj.clip_extra_context_tokens, 0), value=True)
    return unet(
        inputs["x_t"],
        inputs["t"],
        encoder_hidden_states=context,
        class_labels=time_shift,
        attention_mask=mask,
    ).sample


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("config", [KARLO_LIKE, *OTHERS])
@torch.no_grad()
def test_equals_the_unet_behind_its_text_projection(
    parity: SimpleNamespace, config: DecoderConfig, generator: torch.Generator, dtype: torch.dtype
) -> None:
    ours, unet, text_proj = make_pair(parity, config, generator, dtype)
    inputs = draw_inputs(config, generator, dtype)
    parity.close(ours(**inputs), run_theirs(unet, text_proj, inputs))


@torch.no_grad()
def test_memory_format_changes_nothing(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours, unet, text_proj = make_pair(parity, KARLO_LIKE, generator, torch.float64)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float64)
    theirs = run_theirs(unet, text_proj, inputs)
    inputs["x_t"] = inputs["x_t"].contiguous(memory_format=torch.channels_last)
    output = ours.to(memory_format=torch.channels_last)(**inputs)
    parity.close(output, theirs)
    assert output.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_a_dropped_image_is_the_null_of_guidance(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours, unet, text_proj = make_pair(parity, KARLO_LIKE, generator, torch.float64)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float64)
    twice = {name: torch.cat([value, value]) for name, value in inputs.items()}
    theirs = run_theirs(unet, text_proj, {**twice, "image_embed": inputs["image_embed"]}, guided=True)
    keep = torch.tensor([False] * 3 + [True] * 3)
    parity.close(ours(**twice, keep_image=keep), theirs)
    nulls = ours.null_image_embed.expand(3, -1)
    parity.close(ours(**{**inputs, "image_embed": nulls}), theirs[:3])


def whitening_for(config: DecoderConfig, generator: torch.Generator) -> Whitening:
    scales = torch.logspace(1, -1, config.embed_dim, dtype=torch.float64)
    vectors = torch.randn(200, config.embed_dim, generator=generator, dtype=torch.float64) * scales
    return Whitening(vectors.mean(0), zca(torch.cov(vectors.T, correction=0)))


def part_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


KEEP = torch.tensor([True, False, True])


@torch.no_grad()
def test_the_plain_state_of_a_whitened_decoder_is_diffusers(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours, unet, text_proj = make_pair(parity, KARLO_LIKE, generator, torch.float64)
    ours.text_proj.whitening = whitening_for(KARLO_LIKE, generator)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float64)
    plain = plain_state(ours.state_dict())
    unet.load_state_dict(part_of(plain, "unet."))
    text_proj.load_state_dict(part_of(plain, "text_proj."))
    nulled = torch.where(KEEP[:, None], inputs["image_embed"], plain[f"text_proj.{NULL}"])
    theirs = run_theirs(unet, text_proj, {**inputs, "image_embed": nulled})
    parity.close(ours(**inputs, keep_image=KEEP), theirs)
    again = plain_state(plain)
    assert again.keys() == plain.keys() and all(again[name].equal(plain[name]) for name in plain)


@torch.no_grad()
def test_a_state_loads_whoever_whitens(parity: SimpleNamespace, generator: torch.Generator) -> None:
    ours, _, _ = make_pair(parity, KARLO_LIKE, generator, torch.float64)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float64)
    whitenings = [None, whitening_for(KARLO_LIKE, generator), whitening_for(KARLO_LIKE, generator)]
    expected = ours(**inputs, keep_image=KEEP)
    for whitening in (*whitenings, None):
        other = Decoder(KARLO_LIKE).double().eval()
        other.text_proj.whitening = whitening
        other.load_state_dict(ours.state_dict())
        parity.close(other(**inputs, keep_image=KEEP), expected)
        ours = other


@torch.no_grad()
def test_what_does_not_load_is_told_by_torch(generator: torch.Generator) -> None:
    whitened = Decoder(KARLO_LIKE).double()
    whitened.text_proj.whitening = whitening_for(KARLO_LIKE, generator)
    other = Decoder(replace(KARLO_LIKE, embed_dim=24)).double()
    with pytest.raises(RuntimeError, match=f"size mismatch for text_proj.{NULL}"):
        whitened.load_state_dict(other.state_dict())
    missing = whitened.state_dict()
    del missing["text_proj.whitening.matrix"]
    with pytest.raises(RuntimeError, match="whitening"):
        Decoder(KARLO_LIKE).double().load_state_dict(missing)
    del missing[f"text_proj.{NULL}"]
    with pytest.raises(RuntimeError, match=f"Missing key.*{NULL}"):
        whitened.load_state_dict(missing)


@torch.no_grad()
def test_padding_is_invisible_and_extra_tokens_are_not(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours, _, _ = make_pair(parity, KARLO_LIKE, generator, torch.float64)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float64)
    before = ours(**inputs)
    inputs["text"][~inputs["text_mask"]] = 7.0
    assert torch.equal(ours(**inputs), before)
    # Only the context changes here, not the time vector.
    ours.text_proj.clip_extra_context_tokens_proj.weight.mul_(2)
    assert (ours(**inputs) - before).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_begins_at_zero_and_passes_gradients(parity: SimpleNamespace, generator: torch.Generator) -> None:
    decoder = Decoder(KARLO_LIKE)
    inputs = draw_inputs(KARLO_LIKE, generator, torch.float32)
    output = decoder(**inputs)
    assert output.shape == (3, 6, 16, 16) and torch.equal(output, torch.zeros_like(output))
    parity.randomise(decoder, generator)
    decoder(**inputs, keep_image=torch.tensor([True, False, True])).square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # Keys of pixels and of context have biases of their own, so a bias of one kind does move the scores.
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_the_text_lengths_that_diffusers_cannot_take_are_known(
    parity: SimpleNamespace, generator: torch.Generator
) -> None:
    ours, unet, text_proj = make_pair(parity, KARLO_LIKE, generator, torch.float32)
    assert unexportable_text_lengths(KARLO_LIKE) == [12, 60]
    for length, fails in [(12, True), (13, False)]:
        inputs = draw_inputs(KARLO_LIKE, generator, torch.float32)
        inputs["text"] = torch.randn(3, length, 20, generator=generator)
        inputs["text_mask"] = torch.ones(3, length, dtype=torch.bool)
        assert ours(**inputs).isfinite().all()
        if fails:
            with pytest.raises(RuntimeError):
                run_theirs(unet, text_proj, inputs)
        else:
            parity.close(ours(**inputs), run_theirs(unet, text_proj, inputs))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": (32, 48, 96, 64)}, "multiple of num_groups 32"),
        ({"image_size": 20}, "multiple of 8"),
        ({"attention": (True,)}, "4 channels"),
        ({"head_dim": 20}, "head_dim 20"),
        ({"head_dim": 0}, "head_dim 0 must be positive"),
        ({"num_groups": 0}, "num_groups 0 must be positive"),
        ({"num_extra_tokens": 0}, "num_extra_tokens 0 must be positive"),
        ({"time_dim": 0}, "time_dim 0 must be positive"),
        ({"dropout": 1.0}, "dropout 1.0 must be"),
        ({"channels": (31, 62, 93, 62), "num_groups": 31}, "must be even"),
    ],
)
def test_a_bad_shape_is_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(KARLO_LIKE, **change)
