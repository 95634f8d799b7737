"""One SHA-256 that names a CLIP: its sizes, weights, tokenizer and pixel statistics. Another names its text half.

Embeddings, priors and decoders are tied to the CLIP they were made with by this value. It is computed from
meaning, not from files: a copy saved by another transformers, or in more weight files, keeps it.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPTextConfig, CLIPTokenizer

from dalle2_train.encoders.pixels import PixelStatistics
from dalle2_train.encoders.tokenizer import merges_of

TEXT_HALF = ("text_model.", "text_projection.")
"""How the names of the text half's weights begin."""

_TOWER = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
)
_TEXT = (*_TOWER, "vocab_size", "max_position_embeddings", "eos_token_id")
_VISION = (*_TOWER, "num_channels", "image_size", "patch_size")


def clip_fingerprint(
    config: CLIPConfig, state: Mapping[str, Tensor], tokenizer: CLIPTokenizer, pixels: PixelStatistics
) -> str:
    """Hex SHA-256. Weights are hashed as float32, so that a lossless narrower copy has the same name."""
    described = {
        "projection_dim": config.projection_dim,
        "text": {name: getattr(config.text_config, name) for name in _TEXT},
        "vision": {name: getattr(config.vision_config, name) for name in _VISION},
        "tokenizer": _describe_tokenizer(tokenizer),
        "pixels": [list(pixels.mean), list(pixels.std)],
    }
    return _digest(described, state)


def text_fingerprint(
    config: CLIPTextConfig, projection_dim: int, state: Mapping[str, Tensor], tokenizer: CLIPTokenizer
) -> str:
    """Hex SHA-256 of the text half alone, the same in a whole CLIP and in one that has no other half."""
    described = {
        "projection_dim": projection_dim,
        "text": {name: getattr(config, name) for name in _TEXT},
        "tokenizer": _describe_tokenizer(tokenizer),
    }
    return _digest(described, {name: state[name] for name in state if name.startswith(TEXT_HALF)})


def _digest(described: dict[str, object], state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).numpy().data)
    return digest.hexdigest()


def _describe_tokenizer(tokenizer: CLIPTokenizer) -> dict[str, object]:
    return {
        "vocab": tokenizer.get_vocab(),
        "merges": merges_of(tokenizer.backend_tokenizer),
        "special": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id],
        "length": tokenizer.model_max_length,
    }
