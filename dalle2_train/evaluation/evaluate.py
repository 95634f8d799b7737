"""Generate from captions of every split, and see whether the real pictures are found by the generated ones.

Legend: B pictures, H W their size in pixels, S splits.
"""

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from dalle2_train.config import to_dict
from dalle2_train.evaluation.config import HELD_OUT, EvaluationConfig, Progress
from dalle2_train.evaluation.cosines import prior_cosines
from dalle2_train.evaluation.eyes import Eyes, read, see
from dalle2_train.evaluation.gallery import Gallery, fingerprint
from dalle2_train.evaluation.judge import load_judge
from dalle2_train.evaluation.questions import Generate, gallery_of, generate_all, splits_to_judge
from dalle2_train.evaluation.report import EvaluationReport, PriorCosines
from dalle2_train.generation.text_to_image import Generated


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
    splits = splits_to_judge(data_uri, config)
    galleries = {split: gallery_of(data_uri, split, config) for split in dict.fromkeys((*splits, HELD_OUT))}
    generated = {split: generate_all(generate, galleries[split], split, config, progress) for split in splits}
    generated_at = time.monotonic()
    pictures = {split: made.image for split, made in generated.items()}
    readings = {
        name: read(eyes, name, pictures, galleries, config, progress)
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
        seen = see(clip, real, f"prior: real {split}", config, progress)
        found[split] = prior_cosines(made.image_embed.numpy(), seen, made.text_embed.numpy())
    return found


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
