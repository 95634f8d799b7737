"""Ranks of a job: what one's machine lacks is told by all at once, and what they ask of gloo."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collectives_seen import SHORT, read_from, run_noted
from lame_ranks import run_without_beginning, run_without_data
from processes import run_ranks_with

from dalle2_train.launch import train


@pytest.mark.parametrize("work", [run_without_data, run_without_beginning])
def test_what_one_rank_does_not_see_ends_all(make_job, tmp_path, work: Callable[..., Any]):
    settings = ("training.num_steps=2", "training.sample_every_steps=0")
    before = make_job("before", *settings)
    train(before)
    job = replace(make_job("run", *settings), init_from=before.run_uri)
    results = run_ranks_with(job, 2, timeout=200, work=work)
    for code, told in results:
        # Without a code it would still be waiting.
        assert code == 1 and "InputError" in told and "-absent" in told, results


@pytest.mark.system
def test_a_training_asks_gloo_for_collectives_with_short_names_alone(make_job, tmp_path: Path):
    """From a checkpoint on, with pictures and checkpoints."""
    for steps in (2, 4):
        every = [f"training.{name}_every_steps=2" for name in ("checkpoint", "sample")]
        job = make_job("run", f"training.num_steps={steps}", *every, "parallel.shard=2")
        assert [code for code, _ in run_ranks_with(job, 2, work=run_noted)] == [0, 0]
        assert [bool(seen) and seen <= SHORT for seen in read_from(tmp_path)] == [True, True]
