"""One trained part of an unCLIP: its network and its diffusion, as its manifest describes them."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints import ModelManifest, open_model
from dalle2_train.checkpoints.manifest import LAST, MANIFEST_NAME
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.config import build
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig, noise_schedule
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.clip import open_clip
from dalle2_train.generation.unclip import Network, Part
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig


def load_prior(uri: str, *, clip: str | None = None) -> tuple[Part[Prior], ClipEncoder]:
    """The prior of the run, checkpoint or model folder `uri`, with its CLIP. Errors: as `load_unclip`."""
    manifest, state = open_model(uri)
    if manifest.kind != "prior":
        raise InputError(f"{uri} is a model of kind {manifest.kind!r}; give a diffusion prior")
    return open_part(manifest, state, PriorConfig, Prior), open_clip(clip, {"prior": manifest})[0]


def load_upsampler(uri: str) -> Part[Upsampler]:
    """An upsampler alone: a run, checkpoint or model folder. InputError for another kind of model."""
    manifest, state = open_model(uri)
    if manifest.kind != "upsampler":
        raise InputError(f"{uri} is a model of kind {manifest.kind!r}; give an upsampler")
    return open_upsampler(uri, manifest, state)


def open_part(
    manifest: ModelManifest, state: dict[str, Tensor], config_type: type, network_type: type[Network]
) -> Part[Network]:
    """The diffusion model that a manifest describes, with these weights. Errors: as `open_network`."""
    where = f"{manifest.kind} manifest"
    schedule_config = build(ScheduleConfig, _section(manifest, "schedule"), f"{where}.schedule")
    return Part(
        manifest=manifest,
        network=open_network(manifest, state, config_type, network_type),
        schedule_config=schedule_config,
        schedule=noise_schedule(schedule_config),
        objective=build(ObjectiveConfig, _section(manifest, "objective"), f"{where}.objective"),
    )


def open_network(
    manifest: ModelManifest, state: dict[str, Tensor], config_type: type, network_type: type[Network]
) -> Network:
    """The network that a manifest describes, with these weights. InputError where they do not fit."""
    where = f"{manifest.kind} manifest"
    network = network_type(build(config_type, _section(manifest, "network"), f"{where}.network"))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(
            f"{where}: its weights do not fit its config ({reason}); restore the folder"
        ) from error
    return network.eval().requires_grad_(False)


def _section(manifest: ModelManifest, name: str) -> Any:
    if name not in manifest.config:
        raise InputError(
            f"{manifest.kind} manifest: config has no section {name!r}; it was written by another program"
        )
    return manifest.config[name]


def open_upsampler(uri: str, manifest: ModelManifest, state: dict[str, Tensor]) -> Part[Upsampler]:
    """With the network of its last step, where it has one of its own."""
    part = open_part(manifest, state, UpsamplerConfig, Upsampler)
    if f"{LAST}/{MANIFEST_NAME}" not in manifest.files:
        return part
    last = open_part(*open_model(storage.join(resolve_model(uri), LAST)), UpsamplerConfig, Upsampler)
    return replace(part, last=last.network)
