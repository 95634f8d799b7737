"""Steps on a whole model from text to pictures that the command line and the pipelines share."""

import io
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image

from dalle2_train import storage
from dalle2_train.data.samples.collect import Sample, collect, splits_of
from dalle2_train.evaluation import (
    EvaluationConfig,
    EvaluationReport,
    ModelIdentity,
    evaluate,
    verified_digest,
    write_evaluation,
)
from dalle2_train.evaluation.report import SPLITS
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.drawing import open_text_to_image
from dalle2_train.generation.grid import compare, grid, sections
from dalle2_train.generation.text_to_image import TextToImage

Progress = Callable[[str, int, int], None]
"""(what, done, total)."""

_IN_GRID = {"train": 24, "validation": 6, "compositional": 6}
"""Pictures of a split: most show what was learned, some how far it carries."""
_HEADINGS = {
    "train": "captions it was trained on",
    "validation": "things it has never seen",
    "compositional": "things it has seen in another style only",
}


def evaluate_model(
    model: TextToImage,
    models: Sequence[str],
    data: str,
    config: EvaluationConfig,
    *,
    to: str | None = None,
    progress: Progress | None = None,
) -> tuple[str, EvaluationReport]:
    """Judge what `model`, opened from `models` (URIs of parts, or one release), draws for the captions of `data`.

    The report goes to the folder `to`, by default MODEL/evaluation. Returns its URI and what it says.
    """
    # Of a text half alone there are no eyes: the judge's reading stands alone.
    eyes = model.clip if model.clip.sees_pictures else None
    done = evaluate(
        model.draw,
        data,
        config,
        ModelIdentity(models[0], verified_digest(models), model.settings),
        clip=eyes,
        progress=progress,
    )
    return write_evaluation(done, to or storage.join(models[0], "evaluation")), done.report


def sample_grid(
    model: TextToImage,
    prompts: Sequence[str],
    to: str,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Draw `prompts` and publish the labelled grid as the PNG `to`; `progress` hears (steps done, all)."""
    _publish(grid(model.draw(prompts, seed, progress=progress).image, prompts), to)


def sample_captions(model: str, data: str, to: str, sampler: GenerationConfig) -> str:
    """Draw captions of every split of `data` into the labelled grid `to`, a section a split; returns `to`."""
    captions = {
        split: [sample.caption for sample in collect(data, split, limit=_IN_GRID[split], image_size=8)]
        for split in _splits(data)
    }
    images = open_text_to_image([model], sampler).draw([c for some in captions.values() for c in some]).image
    parts = images.split([len(some) for some in captions.values()])
    sheets = zip(captions.items(), parts, strict=True)
    _publish(sections({_HEADINGS[split]: grid(drawn, some) for (split, some), drawn in sheets}), to)
    return to


def draw_side_by_side(models: Mapping[str, TextToImage], data: str, to: str, num_per_split: int = 3) -> str:
    """Captions of every split of `data` drawn by each of `models` (label → model), and the real pictures, into the
    grid `to`: a row a model, a column a caption. The pictures of all models are of one size. Returns `to`."""
    size = next(iter(models.values())).image_size
    samples = _of_every_split(data, num_per_split, size)
    captions = [sample.caption for sample in samples]
    rows = {label: model.draw(captions).image for label, model in models.items()}
    rows["real"] = torch.stack([torch.from_numpy(sample.image.copy()).permute(2, 0, 1) for sample in samples])
    _publish(compare(rows, captions, columns=len(captions)), to)
    return to


def _of_every_split(data: str, num_per_split: int, image_size: int) -> list[Sample]:
    return [s for split in _splits(data) for s in collect(data, split, image_size, num_per_split)]


def _splits(data: str) -> list[str]:
    return [split for split in SPLITS if split in splits_of(data)]


def _publish(picture: Image.Image, to: str) -> None:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    storage.publish_bytes(to, data.getvalue())
