"""Real pictures and captions beside which a training shows what it can do.

Legend: B pictures, H W their size.
"""

from dataclasses import dataclass
from itertools import chain, islice

import torch
from torch import Tensor

from dalle2_train.data.samples.collect import collect, splits_of
from dalle2_train.data.stream.summary import summarize
from dalle2_train.errors import InputError
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.launch.job import TrainJob
from dalle2_train.training.degradation import shrink
from dalle2_train.training.denoising import to_signal

_SPLIT = "validation"


@dataclass(frozen=True)
class Examples:
    """Real pictures and their captions."""

    images: Tensor
    """(B, 3, H, W) uint8."""
    captions: list[str]

    def first(self, count: int) -> "Examples":
        return Examples(self.images[:count], self.captions[:count])


def load_examples(job: TrainJob, count: int, size: int) -> Examples:
    """The first of the validation split, or of the trained one where there is no validation."""
    data = summarize(job.data)
    if not data.has_pictures:
        raise InputError(
            f"{job.data} holds embeddings and no pictures, which the samples during training need; give the shards "
            "with the pictures as --data and these as --embeddings, or set training.sample_every_steps=0"
        )
    split = _SPLIT if _SPLIT in data.splits else job.recipe.data.split
    sets = (uri for uri in data.sets if split in splits_of(uri))
    found = list(islice(chain.from_iterable(collect(uri, split, size, count) for uri in sets), count))
    images = torch.stack([torch.from_numpy(sample.image.copy()) for sample in found])  # (B, H, W, 3)
    return Examples(images.permute(0, 3, 1, 2).contiguous(), [sample.caption for sample in found])


def resized(images: Tensor, size: int) -> Tensor:
    """uint8 (B, 3, H, W) → (B, 3, size, size)."""
    return images if images.shape[-1] == size else to_uint8(shrink(to_signal(images, torch.float32), size))
