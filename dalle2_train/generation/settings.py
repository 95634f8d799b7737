"""What a user set of the generation, for the model at hand: all of it is heeded, or refused by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from dalle2_train.errors import InputError
from dalle2_train.generation.config import PRIORS, GenerationConfig
from dalle2_train.generation.presets import Defaults, generation_config
from dalle2_train.generation.unclip import UPSAMPLERS, Unclip

Settings = Mapping[str, Any]
"""Sections of GenerationConfig, each key → value: what a user set, and nothing else."""

OF_PICTURES: Mapping[str, str] = dict.fromkeys(
    ("decoder.image_embed", *PRIORS), "what is drawn is told a picture's own embedding, and no prior is asked"
)
"""What nothing reads where pictures are manipulated; for `settled`."""


def settled(
    unclip: Unclip, settings: Settings, defaults: Defaults, idle: Mapping[str, str] | None = None
) -> GenerationConfig:
    """`settings` on top of `defaults` (`generation_config`), of which some may name stages that the model lacks.

    idle: further sections, or SECTION.KEY, that nothing reads → why. Errors: InputError for what the model has no
    stage for, or does not run.
    """
    prior = unclip.prior.manifest.kind if unclip.prior is not None else None
    config = generation_config(settings, defaults, prior)
    refuse_idle(settings, {**(idle or {}), **_idle(unclip, config)})
    return config


def refuse_idle(settings: Settings, idle: Mapping[str, str]) -> None:
    """Errors: InputError for the first of `settings` that lies in `idle`: section or SECTION.KEY → why it is idle."""
    for path, value in _dotted(settings):
        for name, reason in idle.items():
            if f"{path}.".startswith(f"{name}."):
                raise InputError(f"generation.{path}={value} would have no effect: {reason}; leave it out")


def _idle(unclip: Unclip, config: GenerationConfig) -> dict[str, str]:
    idle = {
        stage: f"the model has {len(unclip.upsamplers) or 'no'} upsampler{'s' * (not unclip.upsamplers)}"
        for stage in UPSAMPLERS[len(unclip.upsamplers) :]
    }
    if (read := config.decoder.image_embed) != "prior":
        idle |= dict.fromkeys(PRIORS, f"with generation.decoder.image_embed={read} no prior is asked")
    return idle


def _dotted(settings: Settings) -> Iterator[tuple[str, Any]]:
    for section, given in settings.items():
        if isinstance(given, Mapping):
            yield from ((f"{section}.{key}", value) for key, value in given.items())
        else:
            yield section, given
