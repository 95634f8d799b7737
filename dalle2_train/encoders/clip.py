"""Build a CLIP from our config and write it as an ordinary Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from dalle2_train.encoders.pixels import CLIP_PIXELS, PixelStatistics
from dalle2_train.encoders.silence import no_progress_bar
from dalle2_train.encoders.tokenizer import NUM_FIXED_TOKENS, save_tokenizer
from dalle2_train.errors import InputError

MLP_RATIO = 4


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a CLIP whose text encoder can serve an exported unCLIP: text width = `embed_dim`."""

    embed_dim: int
    """Width of both embeddings and of the text Transformer."""
    context_length: int
    """Tokens of a caption, start and end included."""
    vocab_size: int
    """Upper bound of the tokenizer's vocabulary; at least 514."""
    text_depth: int
    text_heads: int
    image_size: int
    """Pixels a side that the vision tower sees."""
    patch_size: int
    """Pixels a side of one patch; divides `image_size`."""
    vision_width: int
    vision_depth: int
    vision_heads: int

    def __post_init__(self) -> None:
        _require_divides("text_heads", self.text_heads, "embed_dim", self.embed_dim)
        _require_divides("vision_heads", self.vision_heads, "vision_width", self.vision_width)
        _require_divides("patch_size", self.patch_size, "image_size", self.image_size)
        if self.vocab_size < NUM_FIXED_TOKENS:
            raise InputError(
                f"vocab_size={self.vocab_size} is below the {NUM_FIXED_TOKENS} tokens for bytes; raise it."
            )


def build_clip(config: ClipConfig, tokenizer: CLIPTokenizer) -> CLIPModel:
    """A randomly initialised CLIP (torch's global generator) for this tokenizer.

    Raises InputError when the tokenizer's vocabulary or context length is not the config's.
    """
    if len(tokenizer) > config.vocab_size:
        raise InputError(
            f"The tokenizer has {len(tokenizer)} tokens; set vocab_size to that, not {config.vocab_size}."
        )
    if tokenizer.model_max_length != config.context_length:
        raise InputError(
            f"The tokenizer cuts at {tokenizer.model_max_length} tokens, but context_length is "
            f"{config.context_length}; train the tokenizer with this context_length."
        )
    return CLIPModel(hf_config(config, tokenizer))


def hf_config(config: ClipConfig, tokenizer: CLIPTokenizer) -> CLIPConfig:
    """The same sizes in transformers' words; nothing that shapes the model is left to a default."""
    text = CLIPTextConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.embed_dim,
        intermediate_size=MLP_RATIO * config.embed_dim,
        projection_dim=config.embed_dim,
        num_hidden_layers=config.text_depth,
        num_attention_heads=config.text_heads,
        max_position_embeddings=config.context_length,
        hidden_act="gelu",
        # Pooling looks for this very id; with the default (49407) it would take every first token.
        **special_ids(tokenizer),
    )
    vision = CLIPVisionConfig(
        hidden_size=config.vision_width,
        intermediate_size=MLP_RATIO * config.vision_width,
        projection_dim=config.embed_dim,
        num_hidden_layers=config.vision_depth,
        num_attention_heads=config.vision_heads,
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_act="gelu",
    )
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.embed_dim)


def special_ids(tokenizer: CLIPTokenizer) -> dict[str, Any]:
    """The ids of start, end and padding by the names that a CLIPTextConfig has for them."""
    return {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def save_clip(
    model: CLIPModel | CLIPTextModelWithProjection,
    tokenizer: CLIPTokenizer,
    folder: Path,
    pixels: PixelStatistics = CLIP_PIXELS,
) -> None:
    """Write config.json, model.safetensors, tokenizer files and, of a whole CLIP, preprocessor_config.json."""
    if isinstance(model, CLIPModel):
        save_clip_companions(model.config, tokenizer, folder, pixels)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(tokenizer, folder)
    with no_progress_bar():
        model.save_pretrained(folder)


def save_clip_companions(
    config: CLIPConfig, tokenizer: CLIPTokenizer, folder: Path, pixels: PixelStatistics = CLIP_PIXELS
) -> None:
    """Everything of a CLIP folder but the weights, so that a training run can publish weights beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    named = CLIPConfig.from_dict({**config.to_dict(), "architectures": ["CLIPModel"]})
    named.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    image_processor(image_size(config), pixels).save_pretrained(folder)


def image_processor(size: int, pixels: PixelStatistics) -> CLIPImageProcessorPil:
    """transformers' counterpart of `to_pixel_values`."""
    square = {"height": size, "width": size}
    mean, std = list(pixels.mean), list(pixels.std)
    return CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size=square, image_mean=mean, image_std=std
    )


def text_config(config: CLIPConfig | CLIPTextConfig) -> CLIPTextConfig:
    """The text tower's part, typed."""
    found = config if isinstance(config, CLIPTextConfig) else config.text_config
    assert isinstance(found, CLIPTextConfig)
    return found


def image_size(config: CLIPConfig) -> int:
    """Pixels a side that the vision tower sees."""
    assert isinstance(config.vision_config, CLIPVisionConfig)
    assert isinstance(config.vision_config.image_size, int)
    return config.vision_config.image_size


def _require_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    if value < 1 or whole % value:
        raise InputError(f"{name}={value} does not divide {whole_name}={whole}; choose a divisor.")
