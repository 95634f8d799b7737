"""Steps on a whole unCLIP that the command line and the pipelines share."""

import io
from collections.abc import Callable, Sequence

import torch

from dalle2_train import storage
from dalle2_train.config import to_dict
from dalle2_train.data.samples.collect import collect, splits_of
from dalle2_train.evaluation import (
    EvaluationConfig,
    EvaluationReport,
    Generated,
    ModelIdentity,
    evaluate,
    verified_digest,
    write_evaluation,
)
from dalle2_train.evaluation.report import SPLITS
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.grid import grid
from dalle2_train.generation.load import Unclip, load_unclip
from dalle2_train.generation.pipeline import generate, generate_stages, to_uint8

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""


def evaluate_unclip(
    unclip: Unclip,
    models: Sequence[str],
    data: str,
    config: EvaluationConfig,
    sampler: GenerationConfig,
    *,
    to: str | None = None,
    progress: Progress | None = None,
) -> tuple[str, EvaluationReport]:
    """Judge what `unclip`, loaded from `models` (URIs of parts, or one release), draws for the captions of `data`.

    The report goes to the folder `to`, by default MODEL/evaluation. Returns its URI and what it says.
    """

    def make(captions: list[str], seed: int) -> Generated:
        stages = generate_stages(unclip, captions, seed, sampler)
        return Generated(
            image=to_uint8(torch.cat([batch.image for batch in stages])),
            image_embed=torch.cat([batch.image_embed for batch in stages]),
            text_embed=unclip.clip.encode_captions(captions).text_embed,
        )

    done = evaluate(
        make,
        data,
        config,
        ModelIdentity(models[0], verified_digest(models), to_dict(sampler)),
        clip=unclip.clip,
        progress=progress,
    )
    return write_evaluation(done, to or storage.join(models[0], "evaluation")), done.report


def sample_grid(
    unclip: Unclip,
    prompts: Sequence[str],
    to: str,
    *,
    sampler: GenerationConfig,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `prompts` and publish the labelled grid as the PNG `to`; `progress` hears (steps done, all)."""
    images = generate(unclip, prompts, seed, sampler, progress=progress)
    picture = io.BytesIO()
    grid(images, prompts).save(picture, format="PNG")
    storage.publish_bytes(to, picture.getvalue())


def image_size(unclip: Unclip) -> int:
    """Pixels a side of the pictures that `unclip` makes."""
    if unclip.upsampler is not None:
        return unclip.upsampler.network.config.high_size
    return unclip.decoder.network.config.image_size


def sample_captions(
    model: str, data: str, to: str, sampler: GenerationConfig, num_per_split: int = 12
) -> str:
    """Draw captions of every split of `data` that it has, into the labelled grid `to`; returns `to`."""
    there = [split for split in SPLITS if split in splits_of(data)]
    samples = [s for split in there for s in collect(data, split, limit=num_per_split, image_size=8)]
    sample_grid(load_unclip([model]), [s.caption for s in samples], to, sampler=sampler)
    return to
