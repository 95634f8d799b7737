"""What the decoder reads as the image embedding: the prior's, the caption's own, or the learned null."""

from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.config import DecoderStageConfig, GenerationConfig
from dalle2_train.generation.drawing import UnclipToImage, open_text_to_image
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.pipeline import generate_stages
from dalle2_train.generation.unclip import Unclip

PROMPTS = ["a red heart", "a small cat"]
NORM = 7.5


def sampler(image_embed: str, guidance_scale: float = 1.0) -> GenerationConfig:
    decoder = DecoderStageConfig(num_steps=2, guidance_scale=guidance_scale, image_embed=image_embed)  # type: ignore[arg-type]
    return GenerationConfig(decoder=decoder)


@pytest.fixture(scope="module")
def alone(models: Mapping[str, str]) -> Unclip:
    """A decoder without prior or upsampler, that was trained on embeddings of a known length."""
    found = load_unclip([models["decoder"]], parts=("decoder",))
    manifest = replace(found.decoder.manifest, image_embed_norm=NORM)
    return replace(found, decoder=replace(found.decoder, manifest=manifest))


def shown(unclip: Unclip, config: GenerationConfig) -> list[tuple[Tensor, ...]]:
    """The decoder's arguments at every step."""
    network = unclip.decoder.network
    with patch.object(network, "predict", wraps=network.predict) as predict:
        generate_stages(unclip, PROMPTS, 0, config)
    return [call.args for call in predict.call_args_list]


def test_text_is_the_captions_embedding_at_the_length_of_a_pictures(alone: Unclip):
    text_embed = alone.clip.encode_captions(PROMPTS).text_embed.double()
    for _, _, image_embed, *_ in shown(alone, sampler("text")):
        expected = text_embed * (NORM / text_embed.square().sum(1, keepdim=True).sqrt())
        torch.testing.assert_close(image_embed.double(), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_none_is_what_the_decoder_learned_for_no_picture(alone: Unclip, scale: float):
    """As in training, where the network itself puts its null in the place of dropped embeddings."""
    network = alone.decoder.network
    for x_t, t, image_embed, *text in shown(alone, sampler("none", scale)):
        nothing = torch.zeros(len(x_t), dtype=torch.bool)
        dropped = network(x_t, t, torch.randn_like(image_embed), *text, nothing)
        torch.testing.assert_close(network(x_t, t, image_embed, *text), dropped, atol=1e-5, rtol=1e-5)


def test_guidance_still_compares_text_with_no_text(alone: Unclip):
    _, _, image_embed, text_embed, *_ = shown(alone, sampler("text", 3.0))[0]
    null_text = alone.clip.encode_captions([""]).text_embed[0]
    assert torch.equal(image_embed[0], alone.decoder.network.null_image_embed)
    assert torch.equal(text_embed[0], null_text) and not torch.equal(text_embed[2], null_text)
    assert image_embed[2].norm().item() == pytest.approx(NORM, rel=1e-5)


def test_the_prior_is_needed_only_where_it_is_asked(models: Mapping[str, str], alone: Unclip):
    with pytest.raises(InputError, match=r"no prior.*generation\.decoder\.image_embed"):
        generate_stages(alone, PROMPTS, 0, sampler("prior"))
    with pytest.raises(InputError, match="'prior'"):
        open_text_to_image([models["decoder"]], parts=("prior", "decoder"))
    made = open_text_to_image([models["decoder"]], sampler("none"), parts=("prior", "decoder")).draw(PROMPTS)
    assert made.image.shape == (2, 3, 16, 16) and made.image_embed is None


def test_an_unknown_length_is_told_with_the_remedy(models: Mapping[str, str]):
    older = load_unclip([models["decoder"]], parts=("decoder",))
    with pytest.raises(InputError, match=r"image_embed=text.*set image_embed=prior, or fine-tune"):
        UnclipToImage(older, sampler("text")).draw(PROMPTS)
