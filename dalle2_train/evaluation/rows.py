"""The report as rows of words, for the terminal and the page alike."""

from collections.abc import Iterator
from typing import NamedTuple

from dalle2_train.evaluation.report import EvaluationReport, PriorCosines, Reading, Scores

HEADERS = ("R@1", "R@10", "KID")
PRIOR_HEADERS = ("picture", "caption")
PRIOR_NOTE = (
    "mean cosines with the embeddings of the real picture and of the caption, by the model's own CLIP"
)


class Row(NamedTuple):
    """One set of pictures or embeddings: its label and a cell for each of the headers."""

    label: str
    cells: tuple[str, ...]
    is_generated: bool


def rows(reading: Reading, split: str, gallery_size: int) -> Iterator[Row]:
    """From floor to ceiling, with the generated pictures first."""
    yield Row("generated", _cells(reading.splits[split]), True)
    yield Row(f"floor: chance of {gallery_size}, noise", _cells(reading.floor[split]), False)
    for size, splits in reading.scale.items():
        if split in splits:
            yield Row(f"real, blurred to {size}", _cells(splits[split]), False)
    yield Row("ceiling: real", _cells(reading.ceiling[split]), False)


def prior_rows(cosines: PriorCosines) -> Iterator[Row]:
    """The prior's embeddings first, then the real ones; a cell for each of PRIOR_HEADERS."""
    image = _number(cosines.image, cosines.image_error, 3)
    yield Row("predicted", (image, _number(cosines.text, cosines.text_error, 3)), True)
    yield Row("floor: another real picture's", (_number(cosines.floor, None, 3), "–"), False)
    yield Row("the real picture's", ("1", _number(cosines.real_text, None, 3)), False)


def eyes(report: EvaluationReport) -> Iterator[tuple[str, str, Reading]]:
    """(name, explanation, reading)"""
    yield "judge", "EfficientNet-Lite0 trained on ImageNet; no part of any model saw it", report.judge
    if report.clip is not None:
        yield (
            "clip",
            "the CLIP that the model was trained with; a model can please it without being good",
            report.clip,
        )


def _cells(scores: Scores) -> tuple[str, str, str]:
    return (
        _number(scores.r1, scores.r1_error, 3),
        _number(scores.r10, scores.r10_error, 3),
        _number(scores.kid, scores.kid_error, 4),
    )


def _number(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error else "")
