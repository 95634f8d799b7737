"""Recipes: the packaged files fit each other and their types, and a mistake in one is told."""

import re
from pathlib import Path
from typing import Any

import pytest

from dalle2_train.config import to_dict
from dalle2_train.errors import InputError
from dalle2_train.recipe import build_recipe, list_recipes, load_recipe
from dalle2_train.recipes import FAMILIES, recipe_path

SIZES = ("tiny", "small")


@pytest.mark.parametrize("name", list_recipes())
def test_a_packaged_recipe_loads_and_its_resolved_form_builds_it_again(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.family == name.partition("/")[0]
    assert build_recipe(to_dict(recipe)) == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_knob_of_a_packaged_recipe_is_explained(name: str) -> None:
    lines = recipe_path(name).read_text().splitlines()
    assert any(f"dalle2-train train {name} " in line for line in lines if line.startswith("#"))
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if re.match(r"\s*\w+: *[^ #]", line) and not line.startswith("family"):
            assert "# " in line or following.strip().startswith("#"), (
                f"{name}: no explanation of {line.strip()}"
            )


def test_every_family_has_every_size() -> None:
    assert set(list_recipes()) >= {f"{family}/{size}" for family in FAMILIES for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
def test_the_four_parts_of_a_size_fit_together_and_can_be_exported(size: str) -> None:
    families = ("clip", "prior", "decoder", "upsampler", "direct")
    seen: Any = (load_recipe(f"{family}/{size}").model for family in families)
    clip, prior, decoder, upsampler, direct = seen
    assert clip.encoder.embed_dim == prior.network.embed_dim == decoder.network.embed_dim
    assert clip.encoder.context_length == prior.network.num_text_tokens
    assert decoder.network.image_size == upsampler.network.low_size
    assert direct.network.text_encoder.context_length == clip.encoder.context_length
    assert direct.network.text_encoder.vocab_size >= clip.encoder.vocab_size
    assert prior.objective.prediction_type == "sample"
    # UnCLIPScheduler knows epsilon and sample, and no v.
    assert {decoder.objective.prediction_type, upsampler.objective.prediction_type} <= {"epsilon", "sample"}
    assert decoder.objective.learned_variance
    assert {m.schedule.name for m in (prior, decoder, upsampler)} == {"cosine"}


def test_overrides_reach_every_depth() -> None:
    recipe = load_recipe(
        "prior/tiny", ["model.network.depth=2", "optimizer.learning_rate=3e-4", "training.seed=7"]
    )
    model: Any = recipe.model
    assert (model.network.depth, recipe.optimizer.learning_rate, recipe.training.seed) == (2, 3e-4, 7)


@pytest.mark.parametrize(
    ("name", "assignment", "words"),
    [
        ("prior/tiny", "modle.width=3", ["'modle'", "'model'"]),
        ("prior/tiny", "model.network.dpeth=3", ["recipe.model.network", "'dpeth'", "'depth'"]),
        ("prior/tiny", "training.num_steps=many", ["recipe.training.num_steps", "'many'"]),
        ("prior/tiny", "training.global_batch_size=30", ["global_batch_size 30", "num_lanes 8", "use 32"]),
        ("prior/tiny", "data.num_lanes=0", ["data.num_lanes is 0", "1 or more"]),
        ("prior/tiny", "training.gradient_clip_norm=0", ["gradient_clip_norm is 0", "null"]),
        ("prior/tiny", "optimizer.beta1=1", ["optimizer.beta1 is 1", "[0, 1)"]),
        ("decoder/tiny", "data.image_size=32", ["data.image_size 32", "20"]),
        ("prior/tiny", "family=priro", ["recipe.family", "'priro'", "prior"]),
        ("decoder/tiny", "family=prior", ["recipe.model"]),
    ],
)
def test_a_mistake_is_told_by_path(name: str, assignment: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(name, [assignment])
    for word in words:
        assert word in str(caught.value)


def test_a_users_own_file_is_a_recipe(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(recipe_path("clip/tiny").read_text())
    assert load_recipe(str(own)) == load_recipe("clip/tiny")


@pytest.mark.parametrize("name", ["clip/huge", "../secret.yaml", "nowhere.yaml"])
def test_a_missing_recipe_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match=r"clip/tiny"):
        load_recipe(name)
