"""What one pair of eyes sees in the pictures: retrieval and distance, between floor and ceiling.

Legend: B pictures, H W their size in pixels, F features.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train.evaluation import references
from dalle2_train.evaluation.config import HELD_OUT, EvaluationConfig, Progress
from dalle2_train.evaluation.gallery import Gallery
from dalle2_train.evaluation.kid import kid
from dalle2_train.evaluation.report import Reading, Scores
from dalle2_train.evaluation.retrieval import Rate, chance, recall_at, similarities

_NUM_NOISE = 50

Features = NDArray[np.float32]


class Eyes(Protocol):
    """Anything that turns uint8 pictures (B, 3, H, W) into features (B, F): the judge, a ClipEncoder."""

    def encode_image(self, image: Tensor) -> Tensor: ...


def read(
    eyes: Eyes,
    name: str,
    generated: Mapping[str, Tensor],
    galleries: Mapping[str, Gallery],
    config: EvaluationConfig,
    progress: Progress,
) -> Reading:
    """All scores by one pair of eyes."""
    real = {
        split: see(eyes, g.images, f"{name}: real {split}", config, progress)
        for split, g in galleries.items()
    }
    held_out = real[HELD_OUT]

    def scores(images: Tensor, split: str, what: str) -> Scores:
        return _scores(see(eyes, images, f"{name}: {what} {split}", config, progress), real[split], held_out)

    # Random pixels look alike, whatever split they stand for, and in small numbers too.
    sample = galleries[HELD_OUT].images[:_NUM_NOISE]
    floor = see(eyes, references.noise(sample, config.seed), f"{name}: noise", config, progress)
    return Reading(
        splits={split: scores(images, split, "generated") for split, images in generated.items()},
        floor={
            split: _floor(floor, real[split], len(images), held_out) for split, images in generated.items()
        },
        ceiling={split: _ceiling(real[split], held_out, split) for split in generated},
        scale={
            f"{size} px": {
                split: scores(references.blur(galleries[split].images, size), split, f"{size} px")
                for split in list(generated)[-1:]
            }
            for size in config.scale
        },
    )


def see(eyes: Eyes, images: Tensor, what: str, config: EvaluationConfig, progress: Progress) -> Features:
    """(B, 3, H, W) uint8 → (B, F)."""
    done: list[Tensor] = []
    for batch in images.split(config.batch_size):
        progress(what, sum(map(len, done)), len(images))
        done.append(eyes.encode_image(batch).float().cpu())
    progress(what, len(images), len(images))
    return torch.cat(done).numpy()


def _scores(seen: Features, gallery: Features, held_out: Features) -> Scores:
    """Scores of pictures whose right ones stand at the same places in the gallery."""
    similarity, right = similarities(seen, gallery), np.arange(len(seen))
    r1, r10 = recall_at(similarity, right, 1), recall_at(similarity, right, 10)
    distance = kid(seen, held_out)
    return Scores(r1.value, r10.value, distance.value, r1.error, r10.error, distance.error)


def _floor(noise: Features, gallery: Features, num_queries: int, held_out: Features) -> Scores:
    r1, r10 = (chance(len(gallery), num_queries, k) for k in (1, 10))
    distance = kid(noise, held_out)
    return Scores(r1.value, r10.value, distance.value, r1.error, r10.error, distance.error)


def _ceiling(gallery: Features, held_out: Features, split: str) -> Scores:
    """Real pictures find themselves, short of doubles. The held-out ones have nothing to be compared with."""
    similarity, right = similarities(gallery, gallery), np.arange(len(gallery))
    r1, r10 = (Rate(recall_at(similarity, right, k).value, 0.0) for k in (1, 10))
    if split == HELD_OUT:
        return Scores(r1.value, r10.value, None, r1.error, r10.error, None)
    distance = kid(gallery, held_out)
    return Scores(r1.value, r10.value, distance.value, r1.error, r10.error, distance.error)
