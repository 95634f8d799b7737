"""The report as rows of words, for the terminal and the page alike."""

from collections.abc import Iterator
from typing import NamedTuple

from dalle2_train.evaluation.report import EvaluationReport, Reading, Scores

HEADERS = ("R@1", "R@10", "KID")


class Row(NamedTuple):
    """One set of pictures: its label and a cell for each of HEADERS."""

    label: str
    cells: tuple[str, str, str]
    is_generated: bool


def rows(reading: Reading, split: str, gallery_size: int) -> Iterator[Row]:
    """From floor to ceiling, with the generated pictures first."""
    yield Row("generated", _cells(reading.splits[split]), True)
    yield Row(f"floor: chance of {gallery_size}, noise", _cells(reading.floor[split]), False)
    for size, splits in reading.scale.items():
        if split in splits:
            yield Row(f"real, blurred to {size}", _cells(splits[split]), False)
    yield Row("ceiling: real", _cells(reading.ceiling[split]), False)


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
