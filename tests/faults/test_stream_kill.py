"""Ranks killed at random moments, resumed by another number of them, have read what uninterrupted ones read."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from forked import Forked
from stream_kill import NUM_STEPS, RESULTS, history, run_trial


@pytest.mark.system
def test_killed_and_resized_runs_read_the_same_keys(tmp_path: Path):
    ranks = Forked("stream_rank")
    ranks.finish([ranks.start("write_sets", tmp_path / "sets")])
    for seed in (1000, 1001, 1002):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        line = run_trial(ranks, tmp_path / "sets", folder, seed)
        assert line["kept"], line


def test_history_is_rewound_to_where_an_attempt_starts(tmp_path: Path):
    def write(attempt: int, rank: int, *lines: str) -> None:
        (tmp_path / f"keys-{attempt}-{rank}.jsonl").write_text("".join(lines))

    write(0, 0, "[0, [[0, 7]]]\n", "[1, [[2, 8]]]\n", "[2, [[4, 9]]]\n")
    write(0, 1, "[0, [[1, 5]]]\n", "[1, [[3, 6]]]\n", "[2, [[5")
    write(1, 0, "[1, [[2, 8], [3, 6]]]\n")
    assert history(tmp_path, [0, 1]) == {0: {0: 7, 1: 5}, 1: {2: 8, 3: 6}}
    assert history(tmp_path, [0]) == {0: {0: 7, 1: 5}, 1: {2: 8, 3: 6}, 2: {4: 9}}


def test_the_trials_on_record_have_all_kept_the_keys():
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert {line["seed"] for line in lines} == set(range(50))
    assert all(line["done"] and line["kept"] for line in lines)
    assert {attempt["reached"] for line in lines for attempt in line["seen"][2:]} == {NUM_STEPS}
