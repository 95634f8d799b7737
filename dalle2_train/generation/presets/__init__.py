"""Named ways of sampling, as YAML: the model's profile names the one that is taken, unless another is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle2_train.config import build, read_yaml
from dalle2_train.errors import InputError
from dalle2_train.generation.config import PRIORS, GenerationConfig, check_prior_sections

PRESETS = ("karlo", "paper")
_FOLDER = Path(__file__).parent


def generation_config(
    settings: Mapping[str, Any], profile: str | None = None, prior: str | None = None
) -> GenerationConfig:
    """`settings` (sections of GenerationConfig) on top of a preset: the one that `settings["preset"]` names, or else
    that of the model's `profile`, or else Karlo's.

    `prior`: the kind of the model's prior, where it is known; a preset's section of the other kind is left out. Raises
    InputError where `settings` have that section, and for what GenerationConfig has no place for.
    """
    changes = dict(settings)
    name = changes.pop("preset", None) or profile or "karlo"
    if name not in PRESETS:
        raise InputError(f"generation.preset: {name!r} is none of {', '.join(PRESETS)}")
    path = _FOLDER / f"{name}.yaml"
    preset = read_yaml(path.read_text(), str(path))
    if prior is not None:
        check_prior_sections(prior, changes)
        preset = {key: value for key, value in preset.items() if key == prior or key not in PRIORS}
    return build(GenerationConfig, _on_top(changes, preset), "generation")


def _on_top(changes: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(preset)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged
