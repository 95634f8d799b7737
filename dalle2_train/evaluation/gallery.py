"""Which pictures an evaluation looks at: the same ones on every machine and for every model.

Legend: B pictures, H W their size in pixels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dalle2_train.data.samples.collect import Sample


@dataclass(frozen=True)
class Gallery:
    """Real pictures of one split, in the order of their names' hashes; the first ones are also the queries."""

    names: tuple[str, ...]
    captions: tuple[str, ...]
    images: Tensor
    """(B, 3, H, W) uint8."""

    def __len__(self) -> int:
        return len(self.names)


def choose(samples: Iterable[Sample], size: int) -> Gallery:
    """The `size` samples (or all, if there are fewer) whose names hash lowest, one per caption.

    Two pictures with one caption could not be told apart by any model, so the second is left out.
    """
    chosen: dict[str, Sample] = {}
    for sample in sorted(samples, key=lambda sample: (_rank(_name(sample)), sample.key)):
        if len(chosen) == size:
            break
        chosen.setdefault(sample.caption, sample)
    samples = list(chosen.values())
    images = [torch.from_numpy(np.array(sample.image)).permute(2, 0, 1) for sample in samples]
    return Gallery(
        names=tuple(_name(sample) for sample in samples),
        captions=tuple(sample.caption for sample in samples),
        images=torch.stack(images) if images else torch.empty(0, 3, 0, 0, dtype=torch.uint8),
    )


def fingerprint(galleries: Sequence[Gallery], num_queries: int) -> str:
    """SHA-256 of names, captions and pixels: equal ones mean that two reports asked the same questions."""
    digest = hashlib.sha256(str(num_queries).encode())
    for gallery in galleries:
        digest.update(repr((gallery.names, gallery.captions, tuple(gallery.images.shape))).encode())
        digest.update(gallery.images.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _name(sample: Sample) -> str:
    """What a picture is called wherever it is stored: keys change when shards are written anew."""
    return f"{sample.meta.get('name', '')}\n{sample.caption}"


def _rank(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
