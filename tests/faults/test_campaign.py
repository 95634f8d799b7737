"""A few trials of every class: the whole campaign takes hours (`make faults`)."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import checkpoint_cut
import checkpoint_flip
import resize
import storage_away
from campaign import lines_of
from report import BEGIN, DOCS, FOLDER, PROMISES, table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(900)]
system = pytest.mark.system


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@system
def test_checkpoints_that_are_cut(tmp_path: Path):
    trials = checkpoint_cut.CutTrials(tmp_path)
    assert {place.is_remote for place in trials.places} == {False, True}
    for seed in range(0, len(trials.places), len(trials.places) // 16):
        assert_kept(trials.run(seed))
    trials.close()


@system
def test_checkpoints_with_a_flipped_bit(tmp_path: Path):
    trials = checkpoint_flip.FlipTrials(tmp_path)
    for seed in range(6):
        assert_kept(trials.run(seed))


@system
def test_trainings_that_change_their_size(tmp_path: Path):
    trials = resize.ResizeTrials(tmp_path)
    for seed in (100, 101):
        assert_kept(trials.run(seed))


@system
@pytest.mark.parametrize("kind", ["errors", "resets"])
def test_storage_that_fails(tmp_path: Path, kind: str):
    trials = storage_away.StorageTrials(tmp_path)
    try:
        assert_kept(trials.run(300 + storage_away.KINDS.index(kind)))
    finally:
        trials.close()


@pytest.mark.parametrize("name", PROMISES)
def test_the_trials_on_record_have_all_kept_their_promise(name: str):
    lines = lines_of(FOLDER / f"{name}.jsonl")
    seeds = [line["seed"] for line in lines]
    assert sorted(seeds) == list(range(len(seeds))) and len(seeds) <= PROMISES[name][1]
    assert [line["seed"] for line in lines if not (line["done"] and line["kept"])] == []


def test_the_documents_table_is_of_the_trials_on_record():
    assert f"{BEGIN}\n{table()}\n" in DOCS.read_text()


def assert_kept(line: dict[str, Any]) -> None:
    assert line["kept"], line
