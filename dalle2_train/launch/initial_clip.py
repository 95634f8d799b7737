"""A pretrained CLIP to go on training: both towers, its tokenizer, and the sizes that the recipe must say."""

from typing import Any

from transformers import CLIPVisionConfig

from dalle2_train.encoders.clip import ClipConfig, text_config
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip
from dalle2_train.encoders.pixels import CLIP_PIXELS
from dalle2_train.errors import InputError


def initial_clip(uri: str, place: str, config: ClipConfig) -> ClipEncoder:
    """The CLIP at `place`, which `uri` means. Raises InputError where the recipe's sizes are not its own, where it is a
    text half alone, or where it sees pixels with other statistics than CLIP's."""
    clip = load_clip(place)
    if not clip.sees_pictures:
        raise InputError(
            f"--init-from {uri}: this CLIP is a text half alone; give one that also has an image tower"
        )
    if clip.pixels != CLIP_PIXELS:
        raise InputError(f"--init-from {uri}: this CLIP sees pixels of mean {list(clip.pixels.mean)} and deviation "
                         f"{list(clip.pixels.std)}; a training prepares them with CLIP's own")  # fmt: skip
    found = sizes(clip)
    differing = {name: value for name, value in found.items() if getattr(config, name) != value}
    if differing:
        settings = " ".join(f"--set model.encoder.{name}={value}" for name, value in differing.items())
        raise InputError(
            f"--init-from {uri}: its sizes are not the recipe's; make them the same with {settings}"
        )
    return clip


def sizes(clip: ClipEncoder) -> dict[str, Any]:
    """A whole CLIP's sizes by `ClipConfig`'s names."""
    text, vision = text_config(clip.model.config), clip.model.config.vision_config
    assert isinstance(vision, CLIPVisionConfig)
    return {
        "embed_dim": clip.embed_dim,
        "context_length": clip.context_length,
        "vocab_size": text.vocab_size,
        "text_depth": text.num_hidden_layers,
        "text_heads": text.num_attention_heads,
        "image_size": clip.image_size,
        "patch_size": vision.patch_size,
        "vision_width": vision.hidden_size,
        "vision_depth": vision.num_hidden_layers,
        "vision_heads": vision.num_attention_heads,
    }
