"""docs/science.md names files, symbols and tests that there are."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEADER = "| equation or claim | where | test |"


def rows() -> list[list[str]]:
    """The three cells of every row."""
    lines = (ROOT / "docs" / "science.md").read_text().splitlines()
    tables = [line for line in lines if line.startswith("|") and line != HEADER and set(line) - set("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables]


def names(cell: int) -> list[str]:
    """What is quoted in one column."""
    return [name for row in rows() for name in re.findall(r"`([^`]+)`", row[cell])]


@cache
def defined(file: Path) -> set[str]:
    """Functions, classes, their members as CLASS.MEMBER, and constants of a module."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        found |= _named(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{member}" for part in node.body for member in _named(part)}
    return found


def _named(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_every_row_has_a_claim_a_place_and_a_test():
    for row in rows():
        assert len(row) == 3 and row[0], row
        assert all(re.fullmatch(r"`[^`]+`(, `[^`]+`)*", cell) for cell in row[1:]), row
    assert len(rows()) > 40


@pytest.mark.parametrize("name", sorted(set(names(1))))
def test_a_place_is_there(name: str):
    file, _, symbol = name.partition(":")
    path = next((ROOT / root / file for root in ("dalle2_train", "") if (ROOT / root / file).is_file()), None)
    assert path is not None, f"no file {file}"
    assert not symbol or symbol in defined(path), f"{file} has no {symbol}"


@pytest.mark.parametrize("name", sorted(set(names(2))))
def test_a_test_is_there(name: str):
    file, _, symbol = name.partition("::")
    assert symbol in defined(ROOT / "tests" / file), name
