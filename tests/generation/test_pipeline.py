"""What pictures depend on, and what not. That they are UnCLIPPipeline's pictures is tests/export's to show."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch

from dalle2_train.errors import InputError
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pipeline import generate, generate_stages
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.unclip import Unclip
from dalle2_train.generation.upsampling import run_upsampler

FAST = GenerationConfig(
    prior=PriorStageConfig(num_steps=3),
    decoder=DecoderStageConfig(num_steps=3),
    upsampler=UpsamplerStageConfig(num_steps=2),
)
PROMPTS = ["a red heart", "a small cat", "", "the moon"]
TOLERANCE = 1e-3  # float32, amplified by random weights and guidance


def image_of(
    unclip: Unclip, prompts: list[str], seed: int = 0, config: GenerationConfig = FAST
) -> torch.Tensor:
    return torch.cat([stages.image for stages in generate_stages(unclip, prompts, seed, config)])


def guided_by(config: GenerationConfig, scale: float) -> GenerationConfig:
    return replace(
        config,
        prior=replace(config.prior, guidance_scale=scale),
        decoder=replace(config.decoder, guidance_scale=scale),
    )


def test_batches_change_nothing(unclip: Unclip):
    whole = image_of(unclip, PROMPTS)
    split = image_of(unclip, PROMPTS, config=replace(FAST, batch_size=3))
    torch.testing.assert_close(whole, split, atol=TOLERANCE, rtol=0)


def test_noise_belongs_to_the_place_in_the_list_and_to_the_seed(unclip: Unclip):
    twice = image_of(unclip, ["a red heart", "a red heart"])
    assert (twice[0] - twice[1]).abs().max() > 0.1
    torch.testing.assert_close(
        image_of(unclip, ["a red heart", "a cat"])[0], twice[0], atol=TOLERANCE, rtol=0
    )
    assert (image_of(unclip, ["a red heart"], seed=1)[0] - twice[0]).abs().max() > 0.1


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_guidance_of_almost_one_is_no_guidance(unclip: Unclip, stage: str):
    """The formula with both halves meets the single forward where they must be equal."""
    plain = guided_by(FAST, 1.0)
    close = replace(plain, **{stage: replace(getattr(plain, stage), guidance_scale=1 + 1e-6)})
    torch.testing.assert_close(image_of(unclip, PROMPTS, config=close), image_of(unclip, PROMPTS, config=plain),
                               atol=TOLERANCE, rtol=0)  # fmt: skip


def test_guidance_of_zero_forgets_the_text(unclip: Unclip):
    """Only the learned variance, which is not guided, still sees it; so it is left out by ddim."""
    config = guided_by(FAST, 0.0)
    config = replace(config, decoder=replace(config.decoder, sampler="ddim"))
    one, other = (
        image_of(unclip, ["a red heart"], config=config),
        image_of(unclip, ["the moon"], config=config),
    )
    torch.testing.assert_close(one, other, atol=TOLERANCE, rtol=0)


def test_pictures_and_their_progress(unclip: Unclip):
    seen: list[tuple[int, int]] = []
    config = replace(FAST, batch_size=3)
    images = generate(unclip, PROMPTS, 0, config, progress=lambda done, total: seen.append((done, total)))
    assert images.dtype == torch.uint8
    assert images.shape == (4, 3, 32, 32)
    assert seen == [(done, 16) for done in range(1, 17)]


def test_without_upsampler_the_pictures_are_the_decoders(unclip: Unclip):
    small = replace(unclip, upsamplers=())
    assert generate(small, PROMPTS, 0, FAST).shape == (4, 3, 16, 16)
    torch.testing.assert_close(image_of(small, PROMPTS), generate_stages(unclip, PROMPTS, 0, FAST)[0].small)


def test_the_second_upsampler_enlarges_what_the_first_made(models: Mapping[str, str], second: str):
    unclip = load_unclip([*models.values(), second])
    config = replace(FAST, second_upsampler=UpsamplerStageConfig("ddim", 2))
    seen: list[tuple[int, int]] = []
    stages = generate_stages(unclip, PROMPTS, 3, config, progress=lambda *told: seen.append(told))[0]
    first = generate_stages(replace(unclip, upsamplers=unclip.upsamplers[:1]), PROMPTS, 3, config)[0].image
    assert seen[-1] == (10, 10)
    draws = Draws(3, torch.arange(4))
    part, section = unclip.upsamplers[1], config.second_upsampler
    with torch.inference_mode():
        expected = run_upsampler(part, "second_upsampler", first, draws, section, lambda: None)
    assert stages.image.shape == (4, 3, 64, 64)
    assert torch.equal(stages.image, expected)
    with pytest.raises(InputError, match=r"second_upsampler\.num_steps=1001"):
        generate(unclip, ["a"], 0, replace(FAST, second_upsampler=UpsamplerStageConfig(num_steps=1001)))


def test_rounding_is_to_the_nearest_of_256():
    values = torch.arange(256, dtype=torch.float32)
    assert torch.equal(to_uint8(values / 127.5 - 1), values.to(torch.uint8))
    assert torch.equal(to_uint8(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255], dtype=torch.uint8))


def test_bad_requests(unclip: Unclip):
    with pytest.raises(InputError, match="no prompt"):
        generate(unclip, [])
    with pytest.raises(InputError, match=r"prior\.num_steps=1001: the prior was trained with 1000"):
        generate(unclip, ["a"], 0, replace(FAST, prior=PriorStageConfig(num_steps=1001)))
