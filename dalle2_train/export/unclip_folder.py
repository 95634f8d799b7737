"""A diffusers unCLIP folder, text-to-image or image-variation, as our models: every tensor and every setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dalle2_train.checkpoints import ModelManifest
from dalle2_train.config import to_dict
from dalle2_train.errors import InputError
from dalle2_train.export.diffusers_configs import (
    decoder_config,
    diffusion_configs,
    prior_config,
    upsampler_config,
)
from dalle2_train.export.diffusers_names import CLASSES, IMAGE_VARIATION, INDEX, TEXT_TO_IMAGE, parts_of
from dalle2_train.export.part_folder import read_config, read_json, read_weights
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler

_PIPELINES = (TEXT_TO_IMAGE, IMAGE_VARIATION)


@dataclass(frozen=True)
class Weights:
    """A model that was read and not built: what its manifest says, and its weights by the network's names."""

    manifest: ModelManifest
    """Without files and without its CLIP."""
    state: dict[str, Tensor]


def parts_in(folder: Path) -> list[str]:
    """The parts of the pipeline in `folder`. InputError where it is no unCLIP, or not a whole one."""
    index = read_json(folder / INDEX)
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        raise InputError(f"{folder}: it is a {pipeline}; give a {' or '.join(_PIPELINES)}")
    parts = parts_of(pipeline)
    named = {
        name: place for name, place in index.items() if isinstance(place, list) and place[-1] is not None
    }
    if unknown := sorted(set(named) - set(parts)):
        raise InputError(f"{folder}: a {pipeline} has no {unknown[0]!r}, which its {INDEX} names")
    for part in parts:
        if not (folder / part).is_dir() or part not in named:
            raise InputError(f"{folder}: there is no {part}, which a {pipeline} has; restore the folder")
        # Image processors have changed their name from version to version.
        if named[part][-1] != CLASSES[part][1] and part != "feature_extractor":
            raise InputError(f"{folder}: {part} is a {named[part][-1]}, not a {CLASSES[part][1]}")
    return parts


def kinds_in(folder: Path) -> list[str]:
    """The kinds of our models in `folder`, beside its CLIP. InputError as `parts_in`."""
    return ["prior", "decoder", "upsampler"][0 if "prior" in parts_in(folder) else 1 :]


def read_part(folder: Path, kind: str) -> Weights:
    """The prior, the decoder, the upsampler, or `last`: the network of the upsampler's last step.

    Raises InputError where there is none in this pipeline, for a setting that ours does not have, and for weights that
    do not fit.
    """
    if kind == "prior" and kind not in kinds_in(folder):
        raise InputError(f"{folder}: an image-variation folder has no prior; give a text-to-image folder")
    return {"prior": _prior, "decoder": _decoder, "upsampler": _upsampler, "last": _last}[kind](folder)


def _prior(folder: Path) -> Weights:
    config = prior_config(read_config(folder, "prior"))
    state = read_weights(folder, "prior", _expected(Prior, config))
    return _weights(folder, "prior", "prior_scheduler", config, state)


def _decoder(folder: Path) -> Weights:
    config = decoder_config(read_config(folder, "decoder"), read_config(folder, "text_proj"))
    expected = _expected(Decoder, config)
    state = {
        prefix + name: value
        for part, prefix in (("decoder", "unet."), ("text_proj", "text_proj."))
        for name, value in read_weights(folder, part, _under(prefix, expected)).items()
    }
    return _weights(folder, "decoder", "decoder_scheduler", config, state)


def _upsampler(folder: Path) -> Weights:
    return _of_upsampler(folder, "super_res_first")


def _last(folder: Path) -> Weights:
    return _of_upsampler(folder, "super_res_last")


def _of_upsampler(folder: Path, part: str) -> Weights:
    low_size = read_config(folder, "decoder")["sample_size"]
    config = upsampler_config(part, read_config(folder, part), low_size)
    state = read_weights(folder, part, _expected(Upsampler, config))
    return _weights(folder, "upsampler", "super_res_scheduler", config, state)


def _weights(folder: Path, kind: str, scheduler: str, network: Any, state: dict[str, Tensor]) -> Weights:
    schedule, objective = diffusion_configs(scheduler, read_config(folder, scheduler))
    sections = {"network": network, "schedule": schedule, "objective": objective}
    config = {name: to_dict(section) for name, section in sections.items()}
    return Weights(ModelManifest(kind=kind, config=config, profile="karlo"), state)


def _expected(network_type: type[nn.Module], config: Any) -> dict[str, Tensor]:
    """Names and shapes, of no memory."""
    with torch.device("meta"):
        return network_type(config).state_dict()


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
