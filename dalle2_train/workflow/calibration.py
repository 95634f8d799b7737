"""Calibrates a trained prior for Analytic-DPM, on shards of pictures with captions.

Legend: N samples, S the picture's side.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints.manifest import EpsStatistics, publish_manifest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.data.samples.collect import Sample, collect
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.calibrate import CalibrationConfig, calibrate
from dalle2_train.generation.folders import RELEASE_MANIFEST
from dalle2_train.generation.part import load_prior
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.prior import Prior
from dalle2_train.training.texts import caption_reader


def calibrate_prior(
    model: str,
    data: str,
    config: CalibrationConfig,
    *,
    clip: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EpsStatistics:
    """Estimate what Analytic-DPM needs of the prior `model` on the shards `data`, and keep it in the model's manifest.

    Errors: InputError for another model, a part of a release, or data without such pictures.
    """
    part, encoder = open_for_calibration(model, config, clip=clip)
    samples = collect(data, config.split, encoder.image_size, config.num_samples)
    check_split(data, config.split, len(samples))
    image_embed = torch.cat(
        [encoder.encode_image(batch) for batch in _images(samples).split(config.batch_size)]
    )
    text = caption_reader(encoder, part.network).read([sample.caption for sample in samples])
    found = calibrate(part, image_embed, text, config, progress)
    publish_manifest(resolve_model(model), replace(part.manifest, eps_statistics=found))
    return found


def open_for_calibration(
    model: str, config: CalibrationConfig, *, clip: str | None = None
) -> tuple[Part[Prior], ClipEncoder]:
    """The prior and its CLIP. Errors: those of `calibrate_prior` that do not depend on the data."""
    if storage.exists(storage.join(storage.parent(resolve_model(model)), RELEASE_MANIFEST)):
        raise InputError(
            f"{model} is part of a release, which nothing changes; calibrate the run and export it again"
        )
    part, encoder = load_prior(model, clip=clip)
    trained = part.schedule_config.num_steps
    if config.num_timesteps > trained:
        raise InputError(
            f"num_timesteps={config.num_timesteps}: the prior was trained with {trained}; give no more"
        )
    encoder.check_sees_pictures()
    return part, encoder


def check_split(data: str, split: str, num_samples: int) -> None:
    """Errors: InputError where a split has too few samples to tell their variance."""
    if num_samples < 2:
        raise InputError(f"{data}: split {split!r} has {num_samples}; give 2 or more pictures with captions")


def _images(samples: list[Sample]) -> Tensor:
    """(N, 3, S, S) uint8."""
    return torch.stack([torch.from_numpy(sample.image.copy()) for sample in samples]).permute(0, 3, 1, 2)
