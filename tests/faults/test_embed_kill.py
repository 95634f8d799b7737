"""Embeddings killed at random moments and started again are those of an uninterrupted run."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from embed_child import NUM_SHARDS, SAMPLES_PER_SHARD
from embed_kill import RESULTS, Reference, run_trial
from forked import Forked


@pytest.mark.system
def test_an_embedding_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path: Path):
    runs = Forked("embed_child")
    reference = Reference(runs, tmp_path / "set")
    for seed in (1000, 1001):
        line = run_trial(runs, reference, tmp_path / str(seed), seed)
        assert line["kept"], line
        assert line["seen"]["keys"] == NUM_SHARDS * SAMPLES_PER_SHARD


def test_the_trials_on_record_have_all_kept_the_files():
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    assert {line["seed"] for line in lines} == set(range(20))
    assert all(line["done"] and line["kept"] for line in lines)
    assert {line["seen"]["keys"] for line in lines} == {NUM_SHARDS * SAMPLES_PER_SHARD}
    exits = [kill["exit"] for line in lines for kill in line["seen"]["kills"]]
    assert set(exits) <= {0, -9} and exits.count(-9) > 30  # some had ended before their moment
