"""Generate from captions of every split, and see whether the real pictures are found by the generated ones.

Legend: B pictures, H W their size in pixels, F features, S splits.
"""

import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dalle2_train import seeding
from dalle2_train.config import to_dict
from dalle2_train.data.samples.collect import collect, splits_of
from dalle2_train.errors import InputError
from dalle2_train.evaluation import references
from dalle2_train.evaluation.cosines import joined, prior_cosines
from dalle2_train.evaluation.gallery import Gallery, choose, fingerprint
from dalle2_train.evaluation.judge import load_judge
from dalle2_train.evaluation.kid import kid
from dalle2_train.evaluation.report import SPLITS, EvaluationReport, PriorCosines, Reading, Scores
from dalle2_train.evaluation.retrieval import Rate, chance, recall_at, similarities
from dalle2_train.generation.text_to_image import Generated

HELD_OUT = "validation"
_NUM_NOISE = 50

Generate = Callable[[list[str], int], Generated]
"""(captions, seed) → what the model makes of them."""
Progress = Callable[[str, int, int], None]
"""(what, done, total)."""
Features = NDArray[np.float32]


class Eyes(Protocol):
    """Anything that turns uint8 pictures (B, 3, H, W) into features (B, F): the judge, a ClipEncoder."""

    def encode_image(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EvaluationConfig:
    """What an evaluation asks. Reports of different questions cannot be compared."""

    image_size: int = 64
    """Pixels a side of the real pictures; that of the generated ones."""
    num_queries: int = 200
    """Captions per split; at most the gallery's size."""
    gallery_size: int = 200
    """Real pictures per split that are searched; chance is k/gallery_size."""
    pool_size: int = 10_000
    """Samples per split, in shard order, that the gallery is chosen from."""
    batch_size: int = 32
    """Pictures at a time, generated or seen."""
    seed: int = 0
    """Of the generation; the same pictures come again with the same batch_size."""
    scale: tuple[int, ...] = (8, 16)
    """Sizes in pixels that the last split's real pictures are blurred to, for comparison."""
    num_examples: int = 12
    """Pictures per split that the report shows."""
    splits: tuple[str, ...] | None = None
    """Splits whose captions are generated from. None: those of train, validation and compositional that there are."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_queries <= self.gallery_size:
            raise ValueError(
                f"num_queries is {self.num_queries}; it must be 2 to gallery_size ({self.gallery_size})"
            )
        if self.batch_size < 1 or self.image_size < 1:
            raise ValueError("batch_size and image_size must be 1 or more")


@dataclass(frozen=True)
class ModelIdentity:
    """Whose pictures these are."""

    uri: str
    digest: str
    sampler: Mapping[str, Any] = field(default_factory=dict)
    """The generation's config, for the report."""


class Example(NamedTuple):
    """One caption with its pictures, each (3, H, W) uint8."""

    caption: str
    generated: Tensor
    real: Tensor


class Evaluation(NamedTuple):
    """The numbers, and pictures to look at by split."""

    report: EvaluationReport
    examples: dict[str, list[Example]]


def evaluate(
    generate: Generate,
    data_uri: str,
    config: EvaluationConfig,
    model: ModelIdentity,
    *,
    clip: Eyes | None = None,
    judge: Eyes | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge the pictures that `generate` makes from the captions of every split of the shards at `data_uri`.

    judge: by default EfficientNet-Lite0. clip: the model's own CLIP, or None to leave its reading out.
    Errors: InputError for splits with too few pictures, pictures of the wrong size, or the missing judge.
    """
    started = time.monotonic()
    judge = judge or load_judge()
    progress = progress or (lambda what, done, total: None)
    splits = _splits(data_uri, config)
    galleries = {split: _gallery(data_uri, split, config) for split in dict.fromkeys((*splits, HELD_OUT))}
    generated = {
        split: _generate_all(generate, galleries[split], split, config, progress) for split in splits
    }
    generated_at = time.monotonic()
    pictures = {split: made.image for split, made in generated.items()}
    readings = {
        name: _read(eyes, name, pictures, galleries, config, progress)
        for name, eyes in (("judge", judge), ("clip", clip))
        if eyes is not None
    }
    ended = time.monotonic()
    report = EvaluationReport(
        model=model.uri,
        model_digest=model.digest,
        data=data_uri,
        questions=fingerprint(list(galleries.values()), config.num_queries),
        seed=config.seed,
        config=to_dict(config),
        counts=_counts(pictures, galleries),
        sampler=dict(model.sampler),
        seconds={
            "generate": round(generated_at - started, 2),
            "judge": round(ended - generated_at, 2),
            "total": round(ended - started, 2),
        },
        judge=readings["judge"],
        clip=readings.get("clip"),
        prior=_prior(generated, galleries, clip, config, progress) if clip is not None else None,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return Evaluation(report, _examples(pictures, galleries, config.num_examples))


def _splits(data_uri: str, config: EvaluationConfig) -> tuple[str, ...]:
    there = splits_of(data_uri)
    if HELD_OUT not in there:
        raise InputError(
            f"{data_uri} has no split {HELD_OUT!r} (but {there}), whose pictures every evaluation compares with; "
            "ingest pictures with 20 captions or more, or give each its split in a captions file"
        )
    return config.splits or tuple(split for split in SPLITS if split in there)


def _gallery(data_uri: str, split: str, config: EvaluationConfig) -> Gallery:
    gallery = choose(collect(data_uri, split, config.image_size, config.pool_size), config.gallery_size)
    if len(gallery) < 2:
        raise InputError(
            f"{data_uri}: split {split!r} has {len(gallery)} pictures, an evaluation needs at least 2 "
            f"(and {config.gallery_size} to be meaningful); give other data, or leave the split out of splits, "
            f"unless it is {HELD_OUT!r}"
        )
    return gallery


def _generate_all(
    generate: Generate, gallery: Gallery, split: str, config: EvaluationConfig, progress: Progress
) -> Generated:
    """What the model makes of the first captions of the gallery."""
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


def _prior(
    generated: Mapping[str, Generated],
    galleries: Mapping[str, Gallery],
    clip: Eyes,
    config: EvaluationConfig,
    progress: Progress,
) -> dict[str, PriorCosines] | None:
    """By split; None where no embeddings were made."""
    found = {}
    for split, made in generated.items():
        if made.image_embed is None or made.text_embed is None:
            return None
        real = galleries[split].images[: len(made.image)]
        seen = _see(clip, real, f"prior: real {split}", config, progress)
        found[split] = prior_cosines(made.image_embed.numpy(), seen, made.text_embed.numpy())
    return found


def _read(
    eyes: Eyes,
    name: str,
    generated: Mapping[str, Tensor],
    galleries: Mapping[str, Gallery],
    config: EvaluationConfig,
    progress: Progress,
) -> Reading:
    """All scores by one pair of eyes."""
    real = {
        split: _see(eyes, g.images, f"{name}: real {split}", config, progress)
        for split, g in galleries.items()
    }
    held_out = real[HELD_OUT]

    def scores(images: Tensor, split: str, what: str) -> Scores:
        return _scores(_see(eyes, images, f"{name}: {what} {split}", config, progress), real[split], held_out)

    # Random pixels look alike, whatever split they stand for, and in small numbers too.
    sample = galleries[HELD_OUT].images[:_NUM_NOISE]
    floor = _see(eyes, references.noise(sample, config.seed), f"{name}: noise", config, progress)
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


def _see(eyes: Eyes, images: Tensor, what: str, config: EvaluationConfig, progress: Progress) -> Features:
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


def _counts(generated: Mapping[str, Tensor], galleries: Mapping[str, Gallery]) -> dict[str, int]:
    queries = {f"queries.{split}": len(images) for split, images in generated.items()}
    return {
        **queries,
        **{f"gallery.{split}": len(gallery) for split, gallery in galleries.items()},
        "held_out": len(galleries[HELD_OUT]),
    }


def _examples(
    generated: Mapping[str, Tensor], galleries: Mapping[str, Gallery], count: int
) -> dict[str, list[Example]]:
    return {
        split: [
            Example(caption, made, real)
            for caption, made, real in zip(
                galleries[split].captions[:count],
                images[:count],
                galleries[split].images[:count],
                strict=False,  # where there are fewer queries than examples, the queries end first
            )
        ]
        for split, images in generated.items()
    }
