"""Equal CPU time: the steps that fit, by a clock of known rates, and what was used, by the system's own account."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from dalle2_train import storage
from dalle2_train.workflow.budget import CpuMeter, calibrate

START, DECODING, STEP, EPOCH = 3.0, 0.5, 0.25, 40


class Machine:
    """A training that takes START, then STEP seconds a step, and DECODING more in the first epoch of EPOCH steps. Its
    first start takes ten times as long."""

    def __init__(self) -> None:
        self.now, self.runs = 0.0, []

    def train(self, attempt: int, num_steps: int) -> None:
        self.now += START * (1 if self.runs else 10) + STEP * num_steps + DECODING * min(num_steps, EPOCH)
        self.runs.append(attempt)


@pytest.mark.parametrize("budget", [20.0, 60.0, 1200.0])
def test_the_steps_fill_the_budget_in_the_first_epoch_and_beyond(budget):
    machine = Machine()
    found = calibrate(budget, machine.train, EPOCH, lambda: machine.now)
    later = found.num_steps > EPOCH
    assert later == (budget > START + EPOCH * (DECODING + STEP))
    assert found.step_seconds == pytest.approx(STEP if later else STEP + DECODING)
    assert found.start_seconds == pytest.approx(START + EPOCH * DECODING if later else START)
    machine.now = 0.0
    machine.train(9, found.num_steps)
    assert machine.now == pytest.approx(budget, abs=STEP + DECODING)
    runs = len(machine.runs) - 1
    assert machine.runs == [*range(runs), 9], "each short run begins anew"


def test_an_epoch_within_the_short_run_is_behind_all_that_is_priced():
    machine = Machine()
    found = calibrate(60.0, machine.train, 3, lambda: machine.now)
    assert len(machine.runs) == 3 and found.step_seconds == pytest.approx(STEP + DECODING)


def test_a_budget_below_the_start_still_trains_a_step():
    machine = Machine()
    assert calibrate(1.0, machine.train, EPOCH, lambda: machine.now).num_steps == 1


def test_a_longer_run_that_was_cheaper_gives_a_price_all_the_same():
    clock = iter([0.0, 8.0, 8.0, 15.0])
    found = calibrate(100.0, lambda attempt, steps: None, 1000, lambda: next(clock))
    assert found.step_seconds == pytest.approx(7 / 35) and found.num_steps == pytest.approx(470, abs=30)


def burn(seconds: float) -> None:
    """Take that much of a processor's time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_meter_counts_what_the_system_counts_over_attempts(tmp_path):
    uri = str(tmp_path / "cpu.json")
    spent = 0.0
    for _ in range(2):
        before = os.times()
        with CpuMeter(uri):
            burn(0.2)
            time.sleep(0.2)
        after = os.times()
        spent += after.user + after.system - before.user - before.system
    assert storage.read_json(uri)["cpu_seconds"] == pytest.approx(spent, abs=0.06)


def test_a_killed_attempt_leaves_its_last_reading(tmp_path):
    uri = str(tmp_path / "cpu.json")
    program = ("import sys, time; from dalle2_train.workflow.budget import CpuMeter\n"
               "with CpuMeter(sys.argv[1], 0.05):\n    print('on', flush=True)\n    while True: pass")  # fmt: skip
    child = subprocess.Popen([sys.executable, "-c", program, uri], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    readings = []
    while len(readings) < 3:
        if storage.exists(uri) and (now := storage.read_json(uri)["cpu_seconds"]) not in readings:
            readings.append(now)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert all(one < other for one, other in pairwise(readings))
    with CpuMeter(uri) as meter:
        assert meter.seconds >= readings[-1]
