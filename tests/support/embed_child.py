"""What the trials of killed embeddings run in a process of their own."""

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny_clip import save_tiny_clip

from dalle2_train.data.shards.writer import Record, write_shards
from dalle2_train.errors import InputError
from dalle2_train.launch.embed import embed

NUM_SHARDS, SAMPLES_PER_SHARD = 8, 25


def write_set(folder: Path) -> None:
    """A set of little pictures, and a CLIP."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(0)
    records = []
    for number in range(NUM_SHARDS * SAMPLES_PER_SHARD):
        file = folder / "picture.png"
        Image.fromarray(draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file)
        records.append(Record(file.read_bytes(), "png", f"picture {number}", {}, 20, 20))
    write_shards(records, str(folder / "shards"), {"kind": "little"}, samples_per_shard=SAMPLES_PER_SHARD)
    save_tiny_clip(folder / "clip")


def embed_set(folder: Path, to: Path) -> None:
    """Embeds it into `to`, with text encodings."""
    torch.set_num_threads(1)  # sums over threads differ in the last bit
    embed(str(folder / "shards"), str(to), str(folder / "clip"), text_encodings=True, batch_size=4)


def refuse_3(number: int) -> int:
    """The number, after a while, not in the order of numbers."""
    time.sleep(0.02 * (7 - number % 8))
    if number == 3:
        raise InputError("number 3 is refused")
    return number
