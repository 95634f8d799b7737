"""Shards of 40 little pictures of noise, every fifth of them held out."""

from pathlib import Path

import numpy as np
from PIL import Image

from dalle2_train.data.sources.ingest import ingest


def write_shards(folder: Path, seed: int = 0) -> str:
    """Writes pictures/ and shards/ into `folder`; returns the shards' URI. Every seed has other pictures."""
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    lines = ["file,caption,split"]
    for number in range(40):
        Image.fromarray(draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(
            pictures / f"{number:03d}.png"
        )
        lines.append(f"{number:03d}.png,picture {number},{'train' if number % 5 else 'validation'}")
    (pictures / "captions.csv").write_text("\n".join(lines) + "\n")
    to = str(folder / "shards")
    ingest(f"folder:{pictures}", to)
    return to
