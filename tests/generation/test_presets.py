"""The named ways of sampling: which is taken, and what may be changed on top."""

import pytest

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.presets import generation_config


def test_karlos_are_the_defaults() -> None:
    assert generation_config({}) == generation_config({}, "karlo") == GenerationConfig()


def test_the_papers_are_those_of_its_table() -> None:
    paper = generation_config({}, "paper")
    stages = [paper.prior, paper.decoder, paper.upsampler, paper.second_upsampler]
    assert [(stage.sampler, stage.num_steps) for stage in stages] == [
        ("analytic_dpm", 64),
        ("ddpm", 250),
        ("ddim", 27),
        ("ddim", 15),
    ]
    assert (paper.prior.num_draws, paper.prior.guidance_scale, paper.decoder.guidance_scale) == (2, 1, 1.25)
    assert paper.decoder.sampler_config("epsilon", learned_variance=True).variance == "learned_range"


def test_a_preset_that_is_asked_for_comes_before_the_profile_and_changes_on_top_of_it() -> None:
    asked = generation_config({"preset": "paper", "decoder": {"num_steps": "50"}, "batch_size": 4}, "karlo")
    assert (asked.decoder.num_steps, asked.decoder.guidance_scale, asked.batch_size) == (50, 1.25, 4)
    assert asked.prior == generation_config({}, "paper").prior


def test_what_has_no_place_is_told() -> None:
    with pytest.raises(InputError, match=r"generation\.preset: 'papre' is none of karlo, paper"):
        generation_config({"preset": "papre"})
    with pytest.raises(InputError, match="no key 'decoder_num_steps'"):
        generation_config({"decoder_num_steps": 3}, "paper")
    with pytest.raises(InputError, match="no key 'num_step'"):
        generation_config({"decoder": {"num_step": 3}}, "paper")


def test_a_preset_leaves_out_the_prior_that_the_model_has_not() -> None:
    paper = generation_config({"ar_prior": {"top_p": 0.9}}, "paper", "ar_prior")
    assert paper.prior == GenerationConfig().prior and paper.ar_prior.top_p == 0.9
    assert paper.decoder == generation_config({}, "paper").decoder
    assert generation_config({}, "paper", "prior") == generation_config({}, "paper")
    # Also where what is set is the default.
    with pytest.raises(InputError, match=r"generation\.prior is set, but the prior is of kind ar_prior"):
        generation_config({"prior": {"num_steps": 25}}, "karlo", "ar_prior")
    with pytest.raises(InputError, match=r"generation\.ar_prior is set, but the prior is of kind prior"):
        generation_config({"ar_prior": {"top_p": 1.0}}, "karlo", "prior")
