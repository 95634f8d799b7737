"""Named ways of sampling, as YAML: the model's profile names the one that is taken, unless another is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle2_train.config import build, read_yaml
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig

PRESETS = ("karlo", "paper")
_FOLDER = Path(__file__).parent


def generation_config(settings: Mapping[str, Any], profile: str | None = None) -> GenerationConfig:
    """`settings` (sections of GenerationConfig) on top of a preset: the one that `settings["preset"]` names, or else
    that of the model's `profile`, or else Karlo's. Raises InputError for what GenerationConfig has no place for.
    """
    changes = dict(settings)
    name = changes.pop("preset", None) or profile or "karlo"
    if name not in PRESETS:
        raise InputError(f"generation.preset: {name!r} is none of {', '.join(PRESETS)}")
    path = _FOLDER / f"{name}.yaml"
    return build(GenerationConfig, _on_top(changes, read_yaml(path.read_text(), str(path))), "generation")


def _on_top(changes: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(preset)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged
