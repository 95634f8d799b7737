"""The files of a diffusers unCLIP folder: our networks carry its names, so weights are written as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dalle2_train import storage
from dalle2_train.encoders.tokenizer import save_tokenizer
from dalle2_train.export.clip_halves import save_weights, write_image_encoder, write_text_encoder
from dalle2_train.export.diffusers_names import (
    CLASSES,
    IMAGE_VARIATION,
    INDEX,
    TEXT_TO_IMAGE,
    config_name,
    default_config,
    parts_of,
    weights_name,
)
from dalle2_train.export.scheduler import scheduler_config
from dalle2_train.generation.unclip import Part, Unclip
from dalle2_train.networks import decoder, prior, upsampler


def write_folder(unclip: Unclip, folder: Path, diffusers_version: str, pipeline: str = TEXT_TO_IMAGE) -> None:
    """All files of the pipeline, unproved."""
    parts = parts_of(pipeline)
    for part, (config, weights) in _networks(unclip).items():
        if part in parts:
            _write_config(folder, part, config, diffusers_version)
            save_weights(weights, folder / part / weights_name(part))
    for part, trained in _sampled(unclip).items():
        if part in parts:
            config = scheduler_config(part, trained.schedule_config, trained.objective)
            _write_config(folder, part, config, diffusers_version)
    write_text_encoder(unclip.clip, folder / "text_encoder")
    save_tokenizer(unclip.clip.tokenizer, folder / "tokenizer")
    if pipeline == IMAGE_VARIATION:
        write_image_encoder(unclip.clip, folder / "image_encoder", folder / "feature_extractor")
    index = {part: list(CLASSES[part]) for part in parts}
    header = {"_class_name": pipeline, "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / INDEX), header | index)


def _networks(unclip: Unclip) -> dict[str, tuple[dict[str, Any], dict[str, Tensor]]]:
    """Part → (its config, its weights)."""
    diffusion_decoder = unclip.decoder.network
    networks = {
        "decoder": (decoder.diffusers_config(diffusion_decoder.config), _unet_weights(unclip.decoder)),
        "text_proj": (
            decoder.diffusers_text_proj_config(diffusion_decoder.config),
            diffusion_decoder.text_proj.state_dict(),
        ),
    }
    (part,) = unclip.upsamplers
    if isinstance(unclip.prior, Part):
        network = unclip.prior.network
        networks["prior"] = (prior.diffusers_config(network.config), network.state_dict())
    # One that was trained here takes the last step too: Karlo's other network was distilled for it.
    for name, network in {
        "super_res_first": part.network,
        "super_res_last": part.last or part.network,
    }.items():
        networks[name] = (upsampler.diffusers_config(network.config), network.state_dict())
    return networks


def _sampled(unclip: Unclip) -> dict[str, Part]:
    """Scheduler → the part that is sampled with it."""
    (upsampler_part,) = unclip.upsamplers
    sampled: dict[str, Part] = {"decoder_scheduler": unclip.decoder, "super_res_scheduler": upsampler_part}
    return sampled if not isinstance(unclip.prior, Part) else sampled | {"prior_scheduler": unclip.prior}


def _unet_weights(part: Part[decoder.Decoder]) -> dict[str, Tensor]:
    """The decoder's U-Net; one that learned no variance is made to say "the smallest" everywhere.

    UnCLIPPipeline splits six channels whatever the scheduler's variance is. The last three are v of eq. 15 of
    Nichol & Dhariwal 2021 scaled to [-1, 1], and v = -1 is the fixed small variance exactly.
    """
    weights = dict(part.network.unet.state_dict())
    if not part.objective.learned_variance:
        weight, bias = weights["conv_out.weight"].clone(), weights["conv_out.bias"].clone()
        weight[3:], bias[3:] = 0.0, -1.0
        weights |= {"conv_out.weight": weight, "conv_out.bias": bias}
    return weights


def _write_config(folder: Path, part: str, config: Mapping[str, Any], diffusers_version: str) -> None:
    """The whole config, as diffusers itself writes it."""
    header = {"_class_name": CLASSES[part][1], "_diffusers_version": diffusers_version}
    storage.publish_json(str(folder / part / config_name(part)), header | default_config(part) | dict(config))
