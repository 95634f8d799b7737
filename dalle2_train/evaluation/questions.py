"""The two sides of an evaluation: real pictures of every split, and what the model makes of their captions."""

from collections.abc import Callable

import torch

from dalle2_train import seeding
from dalle2_train.data.samples.collect import collect, splits_of
from dalle2_train.errors import InputError
from dalle2_train.evaluation.config import HELD_OUT, EvaluationConfig, Progress
from dalle2_train.evaluation.cosines import joined
from dalle2_train.evaluation.gallery import Gallery, choose
from dalle2_train.evaluation.report import SPLITS
from dalle2_train.generation.text_to_image import Generated

Generate = Callable[[list[str], int], Generated]
"""(captions, seed) → what the model makes of them."""


def splits_to_judge(data_uri: str, config: EvaluationConfig) -> tuple[str, ...]:
    """Those whose captions are generated from. InputError for data without held-out pictures."""
    there = splits_of(data_uri)
    if HELD_OUT not in there:
        raise InputError(
            f"{data_uri} has no split {HELD_OUT!r} (but {there}), whose pictures every evaluation compares with; "
            "ingest pictures with 20 captions or more, or give each its split in a captions file"
        )
    return config.splits or tuple(split for split in SPLITS if split in there)


def gallery_of(data_uri: str, split: str, config: EvaluationConfig) -> Gallery:
    """The real pictures of a split that are searched. InputError where there are too few."""
    gallery = choose(collect(data_uri, split, config.image_size, config.pool_size), config.gallery_size)
    if len(gallery) < 2:
        raise InputError(
            f"{data_uri}: split {split!r} has {len(gallery)} pictures, an evaluation needs at least 2 "
            f"(and {config.gallery_size} to be meaningful); give other data, or leave the split out of splits, "
            f"unless it is {HELD_OUT!r}"
        )
    return gallery


def generate_all(
    generate: Generate, gallery: Gallery, split: str, config: EvaluationConfig, progress: Progress
) -> Generated:
    """What the model makes of the first captions of the gallery. InputError for pictures of another size."""
    captions = list(gallery.captions[: config.num_queries])
    done: list[Generated] = []
    for start in range(0, len(captions), config.batch_size):
        progress(f"generate {split}", start, len(captions))
        batch = captions[start : start + config.batch_size]
        made = generate(batch, seeding.key(config.seed, f"evaluation.{split}", start))
        images = made.image
        if images.dtype != torch.uint8 or images.shape != (len(batch), *gallery.images.shape[1:]):
            raise InputError(
                f"the model's pictures are {images.dtype} {tuple(images.shape)}, the evaluation's "
                f"uint8 {(len(batch), *gallery.images.shape[1:])}; set image_size={images.shape[-1]}"
            )
        done.append(made)
    progress(f"generate {split}", len(captions), len(captions))
    return joined(done)
