"""A CLIP of a few thousand parameters for sets of little pictures, saved as a folder."""

from pathlib import Path

import torch

from dalle2_train.encoders import ClipConfig, build_clip, save_clip, train_tokenizer

CONFIG = ClipConfig(
    embed_dim=32,
    context_length=8,
    vocab_size=600,
    text_depth=1,
    text_heads=2,
    image_size=16,
    patch_size=8,
    vision_width=32,
    vision_depth=1,
    vision_heads=2,
)


def save_tiny_clip(folder: Path, seed: int = 0) -> str:
    """Writes it; returns its URI. Every seed has other weights."""
    tokenizer = train_tokenizer(
        [f"picture {n}" for n in range(100)], CONFIG.vocab_size, CONFIG.context_length
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_clip(build_clip(CONFIG, tokenizer), tokenizer, folder)
    return str(folder)
