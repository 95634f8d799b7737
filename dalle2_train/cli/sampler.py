"""What commands that draw pictures share: how the sampler is chosen and told."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dalle2_train.cli.manners import add_settings

if TYPE_CHECKING:
    from dalle2_train.generation.presets import Defaults


def add_sampler(parser: argparse.ArgumentParser, what: str) -> None:
    """--preset, and --set KEY=VALUE on top of it."""
    parser.add_argument("--preset", choices=("karlo", "paper"), help="sample as they do (default: as the model was "
                        "evaluated; where it was not, by its profile)")  # fmt: skip
    add_settings(parser, what)


def chosen_defaults(preset_name: str | None, models: Sequence[str]) -> "Defaults | None":
    """What --preset names, else the sampler that the models were evaluated with; None: neither is there."""
    from dalle2_train.generation.presets import preset
    from dalle2_train.workflow.evaluated_sampler import evaluated_sampler

    return preset(preset_name) if preset_name is not None else evaluated_sampler(models)


def tell(source: str, settings: Mapping[str, Any]) -> None:
    """One line about where the sampler is from."""
    changed = ", changed by --set" if settings else ""
    print(f"sampler: {source}{changed}", file=sys.stderr, flush=True)


def told(source: str, generation: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler in a command's JSON."""
    return {"sampler_from": source, "generation": dict(generation)}


def in_words(generation: Mapping[str, Any]) -> str:
    """A line for each section, for people to read."""
    return "\n".join(f"  generation.{name}: {_values(value)}" for name, value in generation.items())


def _values(section: Any) -> str:
    if not isinstance(section, Mapping):
        return str(section)
    return " ".join(f"{key}={'null' if value is None else value}" for key, value in section.items())
