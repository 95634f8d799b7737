"""A rank that hangs ends itself, and so do those that wait for it."""

import os
import signal
import time
from functools import partial

import pytest
from processes import finish_ranks, run_ranks, start_ranks
from toy_training import losses, train_alone

from dalle2_train.errors import EXIT_PREEMPTED

SLEEPS = {"data": {"acts": {6: partial(time.sleep, 300)}}}


def test_a_step_without_end_ends_the_process_which_says_where_it_stood(tmp_path):
    run = tmp_path / "run"
    ((code, errors),) = run_ranks(run, 1, step_deadline_seconds=1.0, **SLEEPS)
    assert code == EXIT_PREEMPTED
    assert "training.step_deadline_seconds" in errors and "toy_training.py" in errors
    train_alone(str(run))
    train_alone(str(tmp_path / "whole"))
    assert losses(str(run)) == losses(str(tmp_path / "whole"))


def test_the_first_step_has_its_own_deadline(tmp_path):
    ((code, _),) = run_ranks(
        tmp_path / "run", 1, step_deadline_seconds=0.1, first_step_deadline_seconds=60.0,
        data={"acts": {0: partial(time.sleep, 2)}}, seconds=0.0,
    )  # fmt: skip
    assert code == 0


@pytest.mark.system
@pytest.mark.slow
def test_who_waits_for_a_frozen_rank_ends_too(tmp_path):
    run = tmp_path / "run"
    ranks = start_ranks(run, 2, step_deadline_seconds=2.0, seconds=0.05, num_steps=10_000)
    while (
        not run.joinpath("losses.jsonl").exists() or run.joinpath("losses.jsonl").read_text().count("\n") < 5
    ):
        time.sleep(0.05)
    os.kill(ranks[0].pid, signal.SIGSTOP)
    start = time.monotonic()
    ranks[1].join(60)
    assert ranks[1].exitcode == EXIT_PREEMPTED and time.monotonic() - start < 30
    os.kill(ranks[0].pid, signal.SIGKILL)
    finish_ranks(run, ranks)
