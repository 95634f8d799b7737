"""Strict building of frozen types: what a user gets told, and what comes through unchanged."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dalle2_train.config import build, override, read_yaml, to_dict
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class Network:
    width: int
    channels: tuple[int, ...] = (32, 64)
    name: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.width % 32:
            raise InputError(f"width {self.width} must divide by 32; use {self.width // 32 * 32 + 32}")


@dataclass(frozen=True)
class Run:
    network: Network
    learning_rate: float = 1e-4
    clip: str | None = None
    stages: tuple[Network, ...] = ()
    extra: Network | None = None
    weights: dict[str, float] = field(default_factory=dict)


def test_nested_values_and_numbers_as_text_are_built() -> None:
    run = build(
        Run, {"network": {"width": 64, "channels": [8, 16]}, "learning_rate": "3e-4", "weights": {"a": 1}}
    )
    assert run == Run(Network(64, (8, 16)), 3e-4, weights={"a": 1.0})


def test_instances_pass_through_untouched() -> None:
    network = Network(64)
    assert build(Run, {"network": network}).network is network


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"netwrok": {"width": 32}}, ["recipe:", "'netwrok'", "'network'"]),
        ({"network": {"wdith": 32}}, ["recipe.network:", "'wdith'", "'width'"]),
        (
            {"network": {"width": 32}, "stages": [{"width": 32}, {"zzz": 3}]},
            ["recipe.stages[1]", "'zzz'", "channels"],
        ),
        ({"network": {"width": 32}, "extra": {"nam": "x"}}, ["recipe.extra", "'nam'", "'name'"]),
        ({"network": {"width": "wide"}}, ["recipe.network.width", "'wide'", "integer"]),
        ({"network": {"width": 3.5}}, ["recipe.network.width", "3.5"]),
        ({"network": {"width": 32, "name": "sine"}}, ["recipe.network.name", "'sine'", "cosine"]),
        ({"network": {"width": 33}}, ["recipe.network", "width 33 must divide by 32; use 64"]),
        ({"network": {}}, ["recipe.network.width", "missing", "--set network.width="]),
        ({"network": 3}, ["recipe.network", "3"]),
    ],
)
def test_a_mistake_is_told_by_path_value_and_remedy(mapping: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        build(Run, mapping)
    for word in words:
        assert word in str(caught.value)


def test_override_sets_nested_scalars_and_leaves_its_input_alone() -> None:
    mapping = {"network": {"width": 32}}
    changed = override(
        mapping,
        ["network.width=64", "network.channels=[1, 2]", "clip=null", "extra.width=32", "learning_rate=1e-5"],
    )
    assert build(Run, changed) == Run(Network(64, (1, 2)), 1e-5, extra=Network(32))
    assert mapping == {"network": {"width": 32}}


@pytest.mark.parametrize("wrong", ["width", "=3", "a..b=3", "network.width.x=3", "network=[1"])
def test_override_refuses_what_is_no_assignment(wrong: str) -> None:
    with pytest.raises(InputError, match="--set"):
        override({"network": {"width": 32}}, [wrong])


def test_an_overridden_unknown_path_is_named_by_build() -> None:
    with pytest.raises(InputError, match=r"'modle'"):
        build(Run, override({"network": {"width": 32}}, ["modle.width=3"]))


@given(
    st.builds(Run, network=st.builds(Network, width=st.sampled_from([32, 64])), learning_rate=st.floats(0, 1))
)
def test_to_dict_survives_yaml_and_builds_the_same_value(run: Run) -> None:
    assert build(Run, yaml.safe_load(yaml.safe_dump(to_dict(run)))) == run


def test_yaml_with_a_key_twice_is_refused() -> None:
    with pytest.raises(InputError, match="'a' is there twice"):
        read_yaml("a: 1\nb: 2\na: 3\n", "x.yaml")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "3"])
def test_yaml_that_is_no_mapping_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml"):
        read_yaml(text, "x.yaml")


@dataclass(frozen=True)
class Blur:
    kind: Literal["blur"] = "blur"
    sigma: float = 0.6


@dataclass(frozen=True)
class Noise:
    kind: Literal["noise"] = "noise"
    std: tuple[float, float] = (1.0, 2.0)

    def __post_init__(self) -> None:
        if self.std[0] > self.std[1]:
            raise InputError(f"std is {self.std}; the smaller comes first")


@dataclass(frozen=True)
class Model:
    worse: Blur | Noise = Blur()


@dataclass(frozen=True)
class Whole:
    model: Model = Model()


@pytest.mark.parametrize("worse", [Blur(sigma=2.0), Noise(std=(0.5, 3.0))])
def test_of_several_types_the_kind_decides_at_any_depth(worse: Blur | Noise) -> None:
    assert build(Whole, to_dict(Whole(Model(worse)))) == Whole(Model(worse))
    assert build(Whole, {"model": {"worse": worse}}).model.worse is worse


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        ({"kind": "snow"}, ["recipe.model.worse.kind", "'snow'", "blur, noise"]),
        ({"sigma": 1.0}, ["recipe.model.worse.kind", "None", "blur, noise"]),
        ({"kind": "noise", "sigma": 1.0}, ["recipe.model.worse", "'sigma'", "std"]),
        ({"kind": "blur", "sigma": "wide"}, ["recipe.model.worse.sigma", "'wide'"]),
        ({"kind": "noise", "std": [2, 1]}, ["recipe.model.worse", "(2.0, 1.0)", "smaller"]),
    ],
)
def test_mistakes_in_one_of_several_types_are_told_of_that_one(
    worse: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        build(Whole, {"model": {"worse": worse}})
    for word in words:
        assert word in str(caught.value)
