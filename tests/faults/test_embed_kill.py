"""Two of the trials of embed_kill.py, which does many more."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from embed_kill import Reference, Runs, run_trial

pytestmark = pytest.mark.system


def test_an_embedding_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path: Path):
    runs = Runs()
    reference = Reference(runs, tmp_path / "set")
    for seed in (1000, 1001):
        line = run_trial(runs, reference, tmp_path / str(seed), seed)
        assert line["kept"], line
        assert line["seen"]["keys"] == 200
