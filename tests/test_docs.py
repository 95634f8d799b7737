"""The docs' tables name what there is, no more and no less."""

import re
from dataclasses import fields
from pathlib import Path

from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.evaluation import EvaluationConfig
from dalle2_train.generation.calibrate import CalibrationConfig

DOCS = Path(__file__).parents[1] / "docs"


def table(file: str, header: str) -> list[tuple[str, ...]]:
    """The cells of the rows under the header."""
    lines = (DOCS / file).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip("|").split("|")))
    return rows


def test_every_filter_is_explained_in_its_order():
    named = [
        name for first, _ in table("data.md", "| filter | keeps |") for name in re.findall(r"`(\w+)`", first)
    ]
    assert named == [field.name for field in fields(FilterConfig)]


def test_every_key_of_an_evaluation_is_explained():
    rows = table("commands.md", "| key | default | means |")
    named = [name for first, *_ in rows for name in re.findall(r"`(\w+)`", first)]
    assert sorted(named) == sorted(field.name for field in fields(EvaluationConfig))


def test_every_setting_of_a_calibration_is_named():
    text = (
        (DOCS / "commands.md").read_text().partition("The settings of `calibrate` are ")[2].partition(".")[0]
    )
    named = re.findall(r"`(\w+)`", text)
    assert {field.name for field in fields(CalibrationConfig)} == set(named) - {"train"}
