"""A CLIP of a few thousand parameters, saved as a folder."""

import pytest
import torch

from dalle2_train.encoders import ClipConfig, build_clip, save_clip, train_tokenizer

CAPTIONS = [
    f"{colour} {thing}: {tone} tone, it's the woman's"
    for colour in ("red", "green", "blue")
    for thing in ("heart", "apple", "waving hand", "grinning face", "café")
    for tone in ("light", "medium", "dark")
]
CONFIG = ClipConfig(
    embed_dim=32,
    context_length=16,
    vocab_size=640,
    text_depth=2,
    text_heads=4,
    image_size=32,
    patch_size=8,
    vision_width=48,
    vision_depth=2,
    vision_heads=4,
)


@pytest.fixture(scope="session")
def captions():
    return CAPTIONS


@pytest.fixture(scope="session")
def config():
    return CONFIG


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(CAPTIONS, CONFIG.vocab_size, CONFIG.context_length)


@pytest.fixture(scope="session")
def clip(tokenizer):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_clip(CONFIG, tokenizer)


@pytest.fixture(scope="session")
def clip_folder(clip, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(clip, tokenizer, folder)
    return folder
