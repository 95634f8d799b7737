"""The docs' tables name what there is, no more and no less."""

import re
from dataclasses import fields
from pathlib import Path

from dalle2_train.data.selection.filters import FilterConfig

DOCS = Path(__file__).parents[1] / "docs"


def table(file: str, header: str) -> list[tuple[str, str]]:
    """(first cell, second cell) of the rows under the header."""
    lines = (DOCS / file).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        first, second = (cell.strip() for cell in line.strip("|").split("|"))
        rows.append((first, second))
    return rows


def test_every_filter_is_explained_in_its_order():
    named = [
        name for first, _ in table("data.md", "| filter | keeps |") for name in re.findall(r"`(\w+)`", first)
    ]
    assert named == [field.name for field in fields(FilterConfig)]
