"""The account of a run's wall time, by hand."""

import pytest

from dalle2_train import storage
from dalle2_train.training.goodput import Attempt, Goodput, account, read_attempts
from dalle2_train.training.stopwatch import Lap, Stopwatch


def test_a_stopwatch_tells_the_step_from_what_is_beside_it():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    now[0] = 1.0
    for what, seconds in (("data", 2.0), ("checkpoint", 0.5), ("data", 1.0)):
        with watch.doing(what):
            now[0] += seconds
    assert watch.data_seconds == 3.0
    assert watch.lap() == Lap(4.5, 3.0, 0.5, 0.0) and watch.lap() == Lap(0.0, 0.0, 0.0, 0.0)
    assert Lap(4.5, 3.0, 0.5, 0.25).useful == 0.75


def test_a_restart_costs_the_repeated_steps_and_the_time_between():
    # 25 steps of 2 s with checkpoints after 10 and 20, killed; 40 s later on from step 20, 10 steps of 2 s.
    first = Attempt(
        1000.0, 0, 2, 1060.0, 25, useful=50.0, data=4.0, checkpoint=1.0, marks=[(10, 20.0), (20, 40.0)]
    )
    second = Attempt(1100.0, 20, 1, 1130.0, 30, useful=20.0, data=2.0)
    found = account([first, second])
    assert found.wall == 130 and found.repeated == 10 and found.useful == 60
    assert (found.data, found.checkpoint, found.attempts) == (6, 1, 2)
    assert found.down == 130 - 60 - 10 - 7 and found.goodput == pytest.approx(60 / 130)


def test_a_run_that_fell_back_repeats_what_several_attempts_did():
    attempts = [
        Attempt(0.0, 0, 1, 20.0, 20, useful=20.0, marks=[(10, 10.0), (20, 20.0)]),
        Attempt(20.0, 20, 1, 30.0, 30, useful=10.0, marks=[(30, 10.0)]),
        Attempt(30.0, 10, 1, 50.0, 30, useful=20.0),  # both later checkpoints were damaged
    ]
    assert account(attempts).repeated == 20 and account(attempts).useful == 30


def test_the_wall_time_begins_with_the_command_and_ends_with_the_released_weights(tmp_path):
    now = [100.0]
    goodput = Goodput(str(tmp_path), 0, 2, asked=70.0, clock=lambda: now[0])
    now[0] = 110.0
    goodput.add(1, Lap(10.0, 0.0, 1.0, 0.0))
    now[0] = 115.0
    goodput.end(pictures=2.0)
    found = goodput.account
    assert (found.wall, found.useful, found.checkpoint, found.pictures, found.down) == (45, 9, 4, 2, 30)
    storage.publish_json(goodput.uri, goodput.to_json())
    # A later command's start is between two attempts anyway.
    now[0] = 200.0
    again = Goodput(str(tmp_path), 1, 2, asked=150.0, clock=lambda: now[0])
    assert again.account.wall == 130 and read_attempts(str(tmp_path))[0].began == 70


def test_attempts_outlive_the_process(tmp_path):
    now = [100.0]
    first = Goodput(str(tmp_path), 0, 2, clock=lambda: now[0])
    now[0] = 104.0
    first.add(1, Lap(3.0, 1.0, 0.5, 0.0))
    first.mark(1)
    storage.publish_json(first.uri, first.to_json())
    now[0] = 110.0
    second = Goodput(str(tmp_path), 1, 1, clock=lambda: now[0])
    now[0] = 112.0
    second.add(2, Lap(2.0, 0.0, 0.0, 0.0))
    assert second.account.wall == 12 and second.account.useful == 3.5 and second.account.attempts == 2
    (kept,) = read_attempts(str(tmp_path))
    assert kept.marks == [(1, 1.5)] and kept.world_size == 2
    assert storage.read_json(first.uri)["goodput"] == round(1.5 / 4, 4)
