"""What a user sets is heeded, or refused by its name, its value and the reason."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dalle2_train.checkpoints.manifest import publish_manifest, read_manifest
from dalle2_train.config import to_dict
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.drawing import open_with_settings
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.manipulations.drawing import DEFAULTS
from dalle2_train.generation.presets import generation_config, of_profile
from dalle2_train.generation.settings import OF_PICTURES, settled
from dalle2_train.generation.unclip import Unclip

NONE = {"prior": {}, "decoder": {}}
KARLO = of_profile("karlo")


@pytest.mark.parametrize("profile", ["karlo", "paper"])
@pytest.mark.parametrize("settings", [{}, NONE, {"batch_size": 3}])
def test_presets_and_defaults_set_what_a_model_may_lack(unclip: Unclip, profile: str, settings: dict) -> None:
    """They are nobody's wish: only what was set is refused."""
    defaults = of_profile(profile)
    assert settled(unclip, settings, defaults) == generation_config(settings, defaults, "prior")
    # The default too, where it is said.
    steps = GenerationConfig().second_upsampler.num_steps
    with pytest.raises(
        InputError, match=rf"generation\.second_upsampler\.num_steps={steps} would have no effect"
    ):
        settled(unclip, {**settings, "second_upsampler": {"num_steps": steps}}, defaults)


def test_every_section_of_a_stage_that_runs_is_taken(models: Mapping[str, str], second: str) -> None:
    both = load_unclip([*models.values(), second])
    sections = ("prior", "decoder", "upsampler", "second_upsampler")
    config = settled(both, {section: {"num_steps": 3} for section in sections}, KARLO)
    assert [getattr(config, section).num_steps for section in sections] == [3] * 4


TEXT: dict[str, Any] = {"decoder": {"image_embed": "text"}}


@pytest.mark.parametrize(
    ("settings", "idle", "message"),
    [
        (
            {**TEXT, "prior": {"num_draws": 2}},
            {},
            r"prior\.num_draws=2 .*image_embed=text no prior is asked",
        ),
        ({**TEXT, "ar_prior": {"top_p": 0.5}}, {}, r"ar_prior"),
        ({"prior": {"num_steps": 9}}, OF_PICTURES, r"prior\.num_steps=9 .* a picture's own embedding"),
        (TEXT, OF_PICTURES, r"decoder\.image_embed=text .* a picture's own embedding"),
        (
            {"second_upsampler": {"eta": 0.5, "sampler": "ddim"}},
            {},
            r"second_upsampler\.eta=0\.5 .* has 1 upsampler;",
        ),
    ],
)
def test_what_no_stage_reads_is_named(unclip: Unclip, settings: dict, idle: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        settled(unclip, settings, KARLO.but(DEFAULTS), idle)


def test_a_model_without_upsamplers_reads_nothing_of_them(models: Mapping[str, str]) -> None:
    alone = load_unclip([models["decoder"]], parts=("decoder",))
    with pytest.raises(
        InputError, match=r"upsampler\.num_steps=3 .* the model has no upsamplers; leave it out"
    ):
        settled(alone, {"upsampler": {"num_steps": 3}}, KARLO)


def test_what_is_set_lies_on_the_defaults(unclip: Unclip) -> None:
    defaults = of_profile("paper").but(DEFAULTS)
    config = settled(unclip, {"decoder": {"num_steps": 7}}, defaults, OF_PICTURES)
    assert (config.decoder.num_steps, config.decoder.sampler, config.upsampler.num_steps) == (7, "ddim", 27)


def test_what_fits_the_models_own_preset_is_taken(models: Mapping[str, str], tmp_path: Path) -> None:
    """The paper's upsampler is sampled by ddim, which has an eta; Karlo's is not."""
    decoder = tmp_path / "decoder"
    shutil.copytree(models["decoder"], decoder)
    publish_manifest(str(decoder), replace(read_manifest(str(decoder)), profile="paper"))
    parts = [models["clip"], models["prior"], str(decoder), models["upsampler"]]
    settings = {"upsampler": {"eta": 0.5}, "prior": {"sampler": "ddpm"}}
    found = open_with_settings(parts, settings).model.settings
    assert (found["upsampler"]["eta"], found["upsampler"]["sampler"]) == (0.5, "ddim")
    with pytest.raises(InputError, match="ddpm has no use for eta"):
        open_with_settings(list(models.values()), settings)


@pytest.mark.parametrize("section", [*to_dict(GenerationConfig())])
def test_of_a_direct_model_nothing_can_be_set_but_the_batch(
    section: str, tiny: SimpleNamespace, models: Mapping[str, str], tmp_path: Path
) -> None:
    direct = str(tiny.write_direct(tmp_path / "direct", Path(models["clip"])))
    values = {"batch_size": 2, "ar_prior": {"top_p": 1.0}}
    settings = {section: values.get(section, {"sampler": "ddpm"})}
    if section == "batch_size":
        assert open_with_settings([direct], settings).model.settings == settings
        return
    with pytest.raises(InputError, match=rf"generation\.{section}.* would have no effect: a direct model"):
        open_with_settings([direct], settings)
