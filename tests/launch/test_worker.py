"""What one rank's machine lacks is told by all ranks at once: none waits for one that is gone."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
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
