"""What pictures are sampled with where a user sets nothing: a preset, as YAML, or what an evaluation judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle2_train.config import build, read_yaml
from dalle2_train.errors import InputError
from dalle2_train.generation.config import PRIORS, GenerationConfig, check_prior_sections

PRESETS = ("karlo", "paper")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Defaults:
    """What a user's settings are a change of."""

    source: str
    """In words, for people."""
    sections: Mapping[str, Any]
    """Of GenerationConfig."""

    def but(self, of_its_own: Mapping[str, Mapping[str, Any]]) -> "Defaults":
        """These, but for the sections of one way of drawing, which are `of_its_own` whole."""
        if not of_its_own:
            return self
        source = f"{self.source}, but generation.{' and '.join(of_its_own)}"
        return Defaults(source, {**self.sections, **of_its_own})


def preset(name: str) -> Defaults:
    """The named way of sampling. InputError where there is none of that name."""
    if name not in PRESETS:
        raise InputError(f"preset: {name!r} is none of {', '.join(PRESETS)}")
    path = _FOLDER / f"{name}.yaml"
    return Defaults(f"preset {name}", read_yaml(path.read_text(), str(path)))


def of_profile(profile: str | None) -> Defaults:
    """The preset of a model's profile; Karlo's where it has none."""
    return preset(profile or "karlo")


def generation_config(
    settings: Mapping[str, Any], defaults: Defaults | None = None, prior: str | None = None
) -> GenerationConfig:
    """`settings` (sections of GenerationConfig) on top of `defaults`, by default Karlo's.

    `prior`: the kind of the model's prior, where it is known; the defaults' section of the other kind is left out.
    Raises InputError where `settings` have that section, and for what GenerationConfig has no place for.
    """
    sections = (defaults or of_profile(None)).sections
    if prior is not None:
        check_prior_sections(prior, settings)
        sections = {key: value for key, value in sections.items() if key == prior or key not in PRIORS}
    return build(GenerationConfig, on_top(settings, sections), "generation")


def on_top(changes: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """`sections` with the values of `changes`, section by section."""
    merged = dict(sections)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = {**merged[key], **value} if both else value
    return merged
