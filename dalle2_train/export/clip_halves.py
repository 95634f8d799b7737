"""The halves of a CLIP as diffusers' unCLIP pipelines take them from transformers, and what prepares their pictures."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig

from dalle2_train.encoders.clip import image_processor, text_config
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.fingerprint import TEXT_HALF

_IMAGE_HALF = ("vision_model.", "visual_projection.")


def write_text_encoder(clip: ClipEncoder, folder: Path) -> None:
    """A CLIPTextModelWithProjection."""
    _write_half(clip, text_config(clip.model.config), "CLIPTextModelWithProjection", TEXT_HALF, folder)


def write_image_encoder(clip: ClipEncoder, folder: Path, processor: Path) -> None:
    """A CLIPVisionModelWithProjection, and beside it the CLIPImageProcessor that prepares its pictures."""
    config = clip.model.config.vision_config
    assert isinstance(config, CLIPVisionConfig)
    _write_half(clip, config, "CLIPVisionModelWithProjection", _IMAGE_HALF, folder)
    image_processor(clip.image_size, clip.pixels).save_pretrained(processor)


def save_weights(weights: Mapping[str, Tensor], file: Path) -> None:
    """As float32, whatever they are kept in."""
    plain = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    save_file(plain, file, metadata={"format": "pt"})


def _write_half(clip: ClipEncoder, config: Any, name: str, names: tuple[str, ...], folder: Path) -> None:
    config = copy.deepcopy(config)
    config.architectures = [name]
    config.projection_dim = clip.embed_dim
    config.dtype = torch.float32
    config.save_pretrained(folder)
    state = clip.model.state_dict()
    half = {name: value for name, value in state.items() if name.startswith(names)}
    save_weights(half, folder / "model.safetensors")
