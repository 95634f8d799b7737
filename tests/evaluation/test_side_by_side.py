"""Several reports in one table."""

from dataclasses import replace
from typing import Any

import pytest

from dalle2_train.errors import InputError
from dalle2_train.evaluation import EvaluationReport
from dalle2_train.evaluation.report import PriorCosines, Reading, Scores
from dalle2_train.evaluation.side_by_side import side_by_side


def report(r10: float, prior: dict[str, PriorCosines] | None = None, **changes: Any) -> EvaluationReport:
    one = Scores(1.0, 1.0, None)
    judge = Reading(
        splits={"train": Scores(0.1, r10, 0.1232, 0.01, 0.02, 0.003), "validation": Scores(0.2, 0.3, 0.4)},
        floor={split: Scores(0.005, 0.05, 0.5) for split in ("train", "validation")},
        ceiling={split: one for split in ("train", "validation")},
    )
    found = EvaluationReport(
        model="m", model_digest="d", data="u", questions="q", seed=0, config={},
        counts={"gallery.train": 200, "gallery.validation": 150}, sampler={}, seconds={}, judge=judge,
        clip=None, prior=prior,
    )  # fmt: skip
    return replace(found, **changes)


def test_every_model_and_split_has_a_line_and_the_references_come_last() -> None:
    cosines = {split: PriorCosines(0.81, 0.5, 0.2, 0.4, 0.011, 0.01) for split in ("train", "validation")}
    text = side_by_side({"without": report(0.25), "with": report(0.75, cosines)})
    assert text.splitlines() == [
        "|  | split | R@1 | R@10 | KID | prior's cosine |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| without | train | 0.100 ± 0.010 | 0.250 ± 0.020 | 0.1232 ± 0.0030 | – |",
        "|  | validation | 0.200 | 0.300 | 0.4000 | – |",
        "| with | train | 0.100 ± 0.010 | 0.750 ± 0.020 | 0.1232 ± 0.0030 | 0.810 ± 0.011 |",
        "|  | validation | 0.200 | 0.300 | 0.4000 | 0.810 ± 0.011 |",
        "| floor: chance of 200, noise | train | 0.005 | 0.050 | 0.5000 |  |",
        "| ceiling: real | train | 1.000 | 1.000 | – |  |",
        "| floor: chance of 150, noise | validation | 0.005 | 0.050 | 0.5000 |  |",
        "| ceiling: real | validation | 1.000 | 1.000 | – |  |",
    ]


def test_reports_of_different_questions_are_not_laid_side_by_side() -> None:
    with pytest.raises(InputError, match=r"'one' and 'two'.*image_size"):
        side_by_side({"one": report(0.1), "two": report(0.1, questions="other")})
