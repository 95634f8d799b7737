"""Models with their settings, ready to draw: an unCLIP, a direct baseline, either one's pictures enlarged.

Legend: B prompts, H W picture size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from dalle2_train.config import build, check_keys, to_dict
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.direct import DirectModel, draw_direct, is_direct, load_direct
from dalle2_train.generation.folders import unpack_releases
from dalle2_train.generation.load import PARTS, load_unclip
from dalle2_train.generation.pipeline import check_sampling, generate_stages
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.presets import Defaults, of_profile, on_top
from dalle2_train.generation.settings import refuse_idle, settled
from dalle2_train.generation.text_to_image import Generated, Progress, TextToImage
from dalle2_train.generation.unclip import Unclip
from dalle2_train.networks.upsampler import enlarge

_IDLE_OF_DIRECT = {
    name: "a direct model draws in one forward and has no such stage"
    for name in to_dict(GenerationConfig())
    if name != "batch_size"
}


@dataclass(frozen=True)
class UnclipToImage:
    """An unCLIP and how its stages are sampled."""

    unclip: Unclip
    config: GenerationConfig

    def __post_init__(self) -> None:
        check_sampling(self.unclip, self.config)

    @property
    def clip(self) -> ClipEncoder:
        return self.unclip.clip

    @property
    def image_size(self) -> int:
        return self.unclip.image_size

    @property
    def settings(self) -> Mapping[str, Any]:
        return to_dict(self.config)

    def draw(self, prompts: Sequence[str], seed: int = 0, *, progress: Progress | None = None) -> Generated:
        stages = generate_stages(self.unclip, prompts, seed, self.config, progress=progress)
        image = to_uint8(torch.cat([batch.image for batch in stages]))
        if self.config.decoder.image_embed != "prior":
            return Generated(image)
        image_embed = torch.cat([batch.image_embed for batch in stages if batch.image_embed is not None])
        return Generated(image, image_embed, torch.cat([batch.text_embed for batch in stages]))


@dataclass(frozen=True)
class DirectToImage:
    """A direct baseline, of whose sampling nothing can be set but the batch."""

    model: DirectModel
    config: GenerationConfig

    def __post_init__(self) -> None:
        asked, default = to_dict(self.config), to_dict(GenerationConfig(batch_size=self.config.batch_size))
        if others := [name for name in asked if asked[name] != default[name]]:
            raise InputError(
                f"generation.{others[0]}: a direct model draws in one forward and has no such stage; leave it out"
            )

    @property
    def clip(self) -> ClipEncoder:
        return self.model.clip

    @property
    def image_size(self) -> int:
        return self.model.image_size

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"batch_size": self.config.batch_size}

    def draw(self, prompts: Sequence[str], seed: int = 0, *, progress: Progress | None = None) -> Generated:
        return Generated(draw_direct(self.model, prompts, self.config.batch_size, progress=progress))


@dataclass(frozen=True)
class Enlarged:
    """Another model's pictures at a larger size, bicubic: what they are beside those of an upsampler."""

    model: TextToImage
    image_size: int

    @property
    def clip(self) -> ClipEncoder:
        return self.model.clip

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**self.model.settings, "enlarged_to": self.image_size}

    def draw(self, prompts: Sequence[str], seed: int = 0, *, progress: Progress | None = None) -> Generated:
        made = self.model.draw(prompts, seed, progress=progress)
        large = enlarge(made.image.float(), self.image_size)  # (B, 3, H, W)
        return made._replace(image=large.round().clamp(0, 255).to(torch.uint8))


def load_model(
    models: Sequence[str], *, clip: str | None = None, parts: Sequence[str] = PARTS
) -> Unclip | DirectModel:
    """The unCLIP or the direct baseline of `models`; the arguments and errors of `load_unclip`."""
    folders = unpack_releases(models)
    if any(map(is_direct, folders)):
        return load_direct(folders, clip)
    return load_unclip(folders, clip=clip, parts=parts)


def open_text_to_image(
    models: Sequence[str],
    config: GenerationConfig = GenerationConfig(),
    *,
    clip: str | None = None,
    parts: Sequence[str] = PARTS,
) -> TextToImage:
    """An unCLIP or a direct baseline, ready to draw; the arguments and errors of `load_model`.

    A prior has to be there only where `config` asks it.
    """
    model = load_model(models, clip=clip, parts=_needed(parts, config.decoder.image_embed))
    return DirectToImage(model, config) if isinstance(model, DirectModel) else UnclipToImage(model, config)


class Opened(NamedTuple):
    """A model, and what its settings are a change of."""

    model: TextToImage
    defaults: Defaults


def open_with_settings(
    models: Sequence[str], settings: Mapping[str, Any], defaults: Defaults | None = None
) -> Opened:
    """`open_text_to_image`, with a user's `settings` on top of `defaults` (`settled`); None: the preset of the model's
    profile."""
    # To be told now, not when the models are loaded; which values go together depends on the defaults.
    check_keys(GenerationConfig, settings, "generation")
    decoder = on_top(settings, defaults.sections if defaults else {}).get("decoder")
    read = decoder.get("image_embed") if isinstance(decoder, Mapping) else None
    model = load_model(models, parts=_needed(PARTS, read or "prior"))
    if isinstance(model, DirectModel):
        return _open_direct(model, settings, defaults or Defaults("a direct model has none", {}))
    chosen = defaults or of_profile(model.decoder.manifest.profile)
    return Opened(UnclipToImage(model, settled(model, settings, chosen)), chosen)


def _open_direct(model: DirectModel, settings: Mapping[str, Any], defaults: Defaults) -> Opened:
    if set(defaults.sections) - {"batch_size"}:
        raise InputError(
            f"{defaults.source}: a direct model draws in one forward and has no stages; leave it out"
        )
    refuse_idle(settings, _IDLE_OF_DIRECT)
    config = build(GenerationConfig, on_top(settings, defaults.sections), "generation")
    return Opened(DirectToImage(model, config), defaults)


def _needed(parts: Sequence[str], image_embed: str) -> list[str]:
    return [part for part in parts if part != "prior" or image_embed == "prior"]
