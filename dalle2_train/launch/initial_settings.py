"""The settings that weights were trained with and another training's, where they differ.

E embedding.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from dalle2_train.config import build, to_dict
from dalle2_train.launch.initial import Initial
from dalle2_train.recipe import ModelConfig
from dalle2_train.training.prior import PriorModelConfig

_SECTIONS = ("network", "schedule", "objective")
# Of a network's settings a fine-tuning may choose these, of the other sections' it may choose all but those below.
_FREE = ("network.dropout", "network.image_size", "network.low_size", "network.high_size")
_SHAPELESS = ("num_heads", "head_dim", "num_groups")
_MEANING = ("objective.prediction_type", "schedule.name", "schedule.num_steps", "embedding_scale")
_RELEARNED = ("objective.learned_variance", "schedule.zero_terminal_snr")
# A scale stands in float32 weights.
_ROUNDING = 1e-5


class Difference(NamedTuple):
    """One setting, plain values."""

    there: Any
    """What the weights were trained with."""
    here: Any
    """What the recipe says."""


Differences = dict[str, Difference]
"""By the setting's place in `model`, dotted as --set has it."""


def differences(initial: Initial, model: ModelConfig) -> Differences:
    """All that a fine-tuning may not choose freely, of what is known of the weights."""
    there, here = _sections_there(initial, model), _sections(model)
    if isinstance(model, PriorModelConfig):
        here["embedding_scale"] = model.embedding_scale
        there |= _scale_there(initial, model)
    found = _differing(there, here)
    return {key: value for key, value in found.items() if _matters(key)}


def meant_otherwise(found: Differences) -> Differences:
    """Those under which the weights would compute something else, though every shape fits."""
    return {
        key: value for key, value in found.items() if key in _MEANING or key.rpartition(".")[2] in _SHAPELESS
    }


def learned_anew(found: Differences) -> Differences:
    """Those that a fine-tuning may change, and has to teach the weights."""
    return {key: value for key, value in found.items() if key in _RELEARNED}


def told(found: Differences) -> str:
    """In words for a message."""
    return "; ".join(
        f"{key} is {_yaml(both.there)} there, {_yaml(both.here)} in the recipe" for key, both in found.items()
    )


def remedy(found: Differences) -> str:
    """The --set … that take the differences away."""
    return " ".join(f"--set model.{key}={_yaml(both.there)}" for key, both in found.items())


def _matters(key: str) -> bool:
    if key.startswith("network."):
        return key not in _FREE
    return key in (*_MEANING, *_RELEARNED)


def _sections(model: ModelConfig) -> dict[str, Any]:
    return {name: to_dict(getattr(model, name)) for name in _SECTIONS if hasattr(model, name)}


def _sections_there(initial: Initial, model: ModelConfig) -> dict[str, Any]:
    """Built anew, so that an older manifest has the settings that came since."""
    config, kinds = initial.manifest.config, {name: type(getattr(model, name, None)) for name in _SECTIONS}
    return {
        name: to_dict(build(kinds[name], config[name], f"the manifest's {name}"))
        for name in _SECTIONS
        if name in config and hasattr(model, name)
    }


def _scale_there(initial: Initial, model: PriorModelConfig) -> dict[str, float | None]:
    """The scale that stands in the statistics (1, E) of a prior, which are what it normalises by, whatever its manifest
    says; nothing where they are zeros, which diffusers writes where nobody has measured them."""
    mean, std = initial.state["clip_mean"], initial.state["clip_std"][0].double()
    if not std.any():
        return {}
    if mean.any() or not (std == std[0]).all():
        return {"embedding_scale": None}
    scale = 1 / std[0].item()
    is_same = model.embedding_scale is not None and math.isclose(
        scale, model.embedding_scale, rel_tol=_ROUNDING
    )
    return {"embedding_scale": model.embedding_scale if is_same else float(f"{scale:.6g}")}


def _differing(there: Mapping[str, Any], here: Mapping[str, Any], path: str = "") -> Differences:
    found: Differences = {}
    for key in there.keys() & here.keys():
        one, other = there[key], here[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= _differing(one, other, f"{path}{key}.")
        elif one != other:
            found[path + key] = Difference(one, other)
    return dict(sorted(found.items()))


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
