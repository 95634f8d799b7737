"""The CLIP of a diffusers unCLIP folder: its text half, and in an image-variation folder the image half too."""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from dalle2_train.encoders.clip import image_processor
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import open_clip
from dalle2_train.encoders.pixels import PixelStatistics
from dalle2_train.errors import InputError
from dalle2_train.export.part_folder import read_json, read_weights

_TEXT, _IMAGE = "text_encoder", "image_encoder"

LOGIT_SCALE = math.log(100)
"""Of the loss's temperature, which no diffusers folder holds and no embedding depends on: CLIP's own upper bound."""


def read_clip(folder: Path, source: str, scratch: Path) -> ClipEncoder:
    """The CLIP of a pipeline's folder, frozen. scratch: an empty folder; source: what the user calls `folder`.

    Raises InputError where a tensor is missing or too much, where the halves do not belong together, where pictures
    are not prepared as we do it, and as `load_clip`.
    """
    if not (folder / "tokenizer").is_dir():
        raise InputError(f"{source}: there is no tokenizer/; give a whole diffusers unCLIP folder")
    shutil.copytree(folder / "tokenizer", scratch, dirs_exist_ok=True)
    text = CLIPTextConfig.from_dict(_read_config(folder, _TEXT, CLIPTextConfig.model_type))
    config: CLIPConfig | CLIPTextConfig = text
    weights = _read_half(folder, _TEXT, CLIPTextModelWithProjection, text)
    if (folder / _IMAGE).is_dir():
        vision = CLIPVisionConfig.from_dict(_read_config(folder, _IMAGE, CLIPVisionConfig.model_type))
        config = _join(text, vision)
        weights |= _read_half(folder, _IMAGE, CLIPVisionModelWithProjection, vision)
        weights["logit_scale"] = torch.tensor(LOGIT_SCALE)
        _read_image_processor(folder, vision).save_pretrained(scratch)
    config.save_pretrained(scratch)
    save_file(weights, scratch / "model.safetensors", metadata={"format": "pt"})
    return open_clip(source, str(scratch))


def _read_config(folder: Path, part: str, model_type: str) -> dict[str, Any]:
    found = read_json(folder / part / "config.json")
    if found.get("model_type") != model_type:
        raise InputError(f"{part} is of type {found.get('model_type')!r}, not {model_type!r}")
    return found


def _read_half(folder: Path, part: str, model_type: Any, config: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = model_type(config).state_dict()
    half = "text_model" if part == _TEXT else "vision_model"
    # transformers before 4.31 also saved the numbers of the positions.
    return read_weights(folder, part, expected, surplus=(f"{half}.embeddings.position_ids",))


def _join(text: CLIPTextConfig, vision: CLIPVisionConfig) -> CLIPConfig:
    if text.projection_dim != vision.projection_dim:
        raise InputError(
            f"text_encoder has embeddings of {text.projection_dim} dimensions, image_encoder of "
            f"{vision.projection_dim}; give a folder whose halves are one CLIP's"
        )
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=text.projection_dim)
    config.architectures = ["CLIPModel"]
    return config


def _read_image_processor(folder: Path, vision: CLIPVisionConfig) -> CLIPImageProcessorPil:
    """The folder's own, which differs from ours in nothing but mean and deviation."""
    path = folder / "feature_extractor"
    read_json(path / "preprocessor_config.json")
    found = CLIPImageProcessorPil.from_pretrained(path).to_dict()
    pixels = PixelStatistics(tuple(found["image_mean"]), tuple(found["image_std"]))
    assert isinstance(vision.image_size, int)
    ours = image_processor(vision.image_size, pixels)
    for key, value in ours.to_dict().items():
        if key != "image_processor_type" and _plain(found.get(key)) != _plain(value):
            raise InputError(f"feature_extractor: {key} is {found.get(key)!r}, ours is {value!r}")
    return ours


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
