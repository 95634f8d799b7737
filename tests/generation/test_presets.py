"""The named ways of sampling: which is taken, and what may be changed on top."""

import inspect

import pytest
from diffusers import UnCLIPPipeline

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.presets import Defaults, generation_config, of_profile, preset


def test_karlos_are_the_defaults() -> None:
    assert generation_config({}) == generation_config({}, preset("karlo")) == GenerationConfig()


def test_karlos_are_those_of_its_pipeline_in_diffusers() -> None:
    theirs = {name: p.default for name, p in inspect.signature(UnCLIPPipeline.__call__).parameters.items()}
    karlo = generation_config({}, preset("karlo"))
    assert (karlo.prior.num_steps, karlo.decoder.num_steps, karlo.upsampler.num_steps) == (
        theirs["prior_num_inference_steps"],
        theirs["decoder_num_inference_steps"],
        theirs["super_res_num_inference_steps"],
    )
    assert karlo.prior.guidance_scale == theirs["prior_guidance_scale"]
    assert karlo.decoder.guidance_scale == theirs["decoder_guidance_scale"]
    assert {karlo.prior.sampler, karlo.decoder.sampler, karlo.upsampler.sampler} == {"ddpm"}


def test_the_papers_are_those_of_its_table() -> None:
    paper = generation_config({}, preset("paper"))
    stages = [paper.prior, paper.decoder, paper.upsampler, paper.second_upsampler]
    assert [(stage.sampler, stage.num_steps) for stage in stages] == [
        ("analytic_dpm", 64),
        ("ddpm", 250),
        ("ddim", 27),
        ("ddim", 15),
    ]
    assert (paper.prior.num_draws, paper.prior.guidance_scale, paper.decoder.guidance_scale) == (2, 1, 1.25)
    assert paper.decoder.sampler_config("epsilon", learned_variance=True).variance == "learned_range"


def test_changes_are_on_top_key_by_key() -> None:
    changed = generation_config({"decoder": {"num_steps": "50"}, "batch_size": 4}, preset("paper"))
    assert (changed.decoder.num_steps, changed.decoder.guidance_scale, changed.batch_size) == (50, 1.25, 4)
    assert changed.prior == generation_config({}, preset("paper")).prior


def test_a_profile_names_a_preset_and_none_is_karlos() -> None:
    assert of_profile("paper") == preset("paper") and of_profile(None) == preset("karlo")


def test_what_has_no_place_is_told() -> None:
    with pytest.raises(InputError, match=r"preset: 'papre' is none of karlo, paper"):
        preset("papre")
    with pytest.raises(InputError, match="no key 'decoder_num_steps'"):
        generation_config({"decoder_num_steps": 3}, preset("paper"))
    with pytest.raises(InputError, match="no key 'num_step'"):
        generation_config({"decoder": {"num_step": 3}}, preset("paper"))


def test_sections_of_a_way_of_drawing_are_its_own_whole() -> None:
    evaluated = Defaults("as evaluated", {"decoder": {"eta": 1.0, "sampler": "ddim"}, "batch_size": 8})
    own = evaluated.but({"decoder": {"sampler": "ddim", "num_steps": 9}})
    assert own.sections == {"decoder": {"sampler": "ddim", "num_steps": 9}, "batch_size": 8}
    assert own.source == "as evaluated, but generation.decoder"
    assert evaluated.but({}) == evaluated


def test_a_preset_leaves_out_the_prior_that_the_model_has_not() -> None:
    paper = generation_config({"ar_prior": {"top_p": 0.9}}, preset("paper"), "ar_prior")
    assert paper.prior == GenerationConfig().prior and paper.ar_prior.top_p == 0.9
    assert paper.decoder == generation_config({}, preset("paper")).decoder
    assert generation_config({}, preset("paper"), "prior") == generation_config({}, preset("paper"))
    # Also where what is set is the default.
    with pytest.raises(InputError, match=r"generation\.prior is set, but the prior is of kind ar_prior"):
        generation_config({"prior": {"num_steps": 25}}, preset("karlo"), "ar_prior")
    with pytest.raises(InputError, match=r"generation\.ar_prior is set, but the prior is of kind prior"):
        generation_config({"ar_prior": {"top_p": 1.0}}, preset("karlo"), "prior")
