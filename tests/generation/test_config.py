"""Sections of the generation's config, as the command line sets them."""

import pytest

from dalle2_train.config import build, override
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig


def set_generation(*settings: str) -> GenerationConfig:
    return build(GenerationConfig, override({}, settings), "generation")


def test_a_stage_is_set_alone() -> None:
    config = set_generation("prior.num_steps=64", "upsampler.sampler=ddim", "upsampler.eta=0.5")
    karlo = GenerationConfig()
    assert config.prior.num_steps == 64 and config.prior.sampler == karlo.prior.sampler
    assert (config.upsampler.sampler, config.upsampler.eta) == ("ddim", 0.5)
    assert config.upsampler.num_steps == 7 and config.decoder == karlo.decoder


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("decoder.num_steps=0", r"generation\.decoder: .*num_steps 0 must be at least 1"),
        ("prior.guidance_scale=-1", r"generation\.prior: .*guidance_scale=-1.0 is negative"),
        ("prior.eta=0.5", r"generation\.prior: .*sampler ddpm has no use for eta 0.5"),
        ("upsampler.clip_sample_range=0", "clip_sample_range 0.0 must be positive"),
        ("decoder.threshold_quantile=1.5", "threshold_quantile 1.5 must be in"),
        ("upsampler.guidance_scale=2", r"generation\.upsampler: no key 'guidance_scale'"),
        ("decoder.sampler=dpm", r"generation\.decoder\.sampler: 'dpm'"),
        ("prior.num_draws=0", "num_draws=0: give at least 1"),
        ("prior.guidance_rescale=1.5", "guidance_rescale=1.5: give 0 to 1"),
        ("ar_prior.top_p=0", "top_p=0.0: give more than 0"),
        ("decoder.sampler=analytic_dpm", "analytic_dpm is the prior's"),
        ("second_upsampler.sampler=analytic_dpm", "analytic_dpm is the prior's"),
        ("batch_size=0", "batch_size=0"),
    ],
)
def test_what_cannot_be_is_named(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        set_generation(setting)


def test_what_another_setting_makes_idle_is_refused() -> None:
    with pytest.raises(InputError, match=r"guidance_rescale=0\.7 .* guidance_scale=1 is none"):
        set_generation("decoder.guidance_scale=1", "decoder.guidance_rescale=0.7")
    with pytest.raises(InputError, match=r"top_p=0\.5: with temperature=0 the likeliest"):
        set_generation("ar_prior.temperature=0", "ar_prior.top_p=0.5")


def test_a_quantile_needs_a_range_to_scale_into() -> None:
    with pytest.raises(InputError, match="clip_sample_range, which is null"):
        set_generation("decoder.threshold_quantile=0.9", "decoder.clip_sample_range=null")


def test_variances_are_ddpms_and_a_learned_one_must_have_been_learned() -> None:
    with pytest.raises(InputError, match="ddim has no use for variance fixed_large"):
        set_generation("decoder.sampler=ddim", "decoder.variance=fixed_large")
    asked = set_generation("upsampler.variance=learned_range").upsampler
    with pytest.raises(InputError, match="the model has learned none; set fixed_small or fixed_large"):
        asked.sampler_config("epsilon", learned_variance=False)
    ddpm, ddim = set_generation().decoder, set_generation("decoder.sampler=ddim").decoder
    assert ddpm.sampler_config("epsilon", learned_variance=True).variance == "learned_range"
    assert ddpm.sampler_config("epsilon", learned_variance=False).variance == "fixed_small"
    assert ddim.sampler_config("epsilon", learned_variance=True).variance == "fixed_small"
