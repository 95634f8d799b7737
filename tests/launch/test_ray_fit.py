"""A stop that is asked for while no worker is there to hear of it, and what is told of workers that start."""

import time
from pathlib import Path
from typing import Any

import pytest

from dalle2_train import storage
from dalle2_train.checkpoints.layout import goodput_uri, progress_uri, stop_uri
from dalle2_train.errors import PreemptedError
from dalle2_train.launch import ray_fit
from dalle2_train.launch.ray_fit import WAITING_SECONDS, StartsTold, StopWhileWaiting, fit_trainer
from dalle2_train.training.goodput import Goodput


@pytest.fixture
def run(tmp_path: Path) -> str:
    storage.publish_json(progress_uri(str(tmp_path)), {"status": "starting"})
    return str(tmp_path)


def test_it_is_heeded_once_workers_would_have_heard_of_it(run: str):
    now = [0.0]
    check = StopWhileWaiting(run, lambda: now[0])
    now[0] = 1000.0
    check()
    storage.publish_bytes(stop_uri(run), b"")
    check()
    now[0] += WAITING_SECONDS - 1
    check()
    now[0] += 1
    with pytest.raises(PreemptedError, match="waited for workers"):
        check()


def test_workers_that_train_are_left_to_hear_of_it_themselves(run: str):
    now = [0.0]
    check = StopWhileWaiting(run, lambda: now[0])
    storage.publish_bytes(stop_uri(run), b"")
    check()
    storage.publish_json(progress_uri(run), {"status": "running"})
    now[0] = 10 * WAITING_SECONDS
    check()
    # They have ended: it counts from then.
    storage.publish_json(progress_uri(run), {"status": "preempted"})
    check()
    now[0] += WAITING_SECONDS
    with pytest.raises(PreemptedError):
        check()


def test_the_step_that_workers_go_on_from_is_told(run: str, capsys: pytest.CaptureFixture[str]):
    def begin(*steps: int) -> str:
        for step in steps:
            storage.publish_json(goodput_uri(run), Goodput(run, step, 2).to_json())
        tell()
        tell()
        return capsys.readouterr().err

    tell = StartsTold(run)
    assert begin(0) == ""
    again = f"{run}: workers were started again, going on from step"
    assert begin(16) == f"{again} 16\n"
    tell = StartsTold(run)
    assert begin(24) == f"{run}: going on from step 24\n"
    assert begin(0, 8) == f"{again} 0\n{again} 8\n"
    storage.publish_bytes(goodput_uri(run), b"{")  # cannot be read for once
    tell()
    assert capsys.readouterr().err == ""


class FakeTrainer:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def fit(self) -> Any:
        time.sleep(0.1)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_a_fit_ends_as_it_does_and_is_looked_after_until_then(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_fit, "_LOOK_SECONDS", 0.01)
    looked = []
    looks = (lambda: looked.append(1), lambda: looked.append(2))
    assert fit_trainer(FakeTrainer("done"), looks) == "done"  # pyright: ignore[reportArgumentType]
    assert looked[:4] == [1, 2, 1, 2]
    with pytest.raises(TimeoutError, match="of Ray's own"):
        fit_trainer(FakeTrainer(TimeoutError("of Ray's own")), ())  # pyright: ignore[reportArgumentType]

    def stop() -> None:
        raise PreemptedError("stopped")

    with pytest.raises(PreemptedError):
        fit_trainer(FakeTrainer("done"), (stop,))  # pyright: ignore[reportArgumentType]
