"""Metrics that wait for MLflow in a file: none is lost, none is sent twice."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from dalle2_train.tracking import run as run_module
from dalle2_train.tracking.run import MlflowRecorder
from dalle2_train.tracking.spool import Spool

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_INTERVAL_SECONDS", 0.05)


def recorder_of(tracking_uri: str, spool: Path, completed_steps: int, **options: Any) -> MlflowRecorder:
    recorder = MlflowRecorder(
        tracking_uri, "tests", "prior", {}, spool=str(spool), system_metrics=False, **options
    )
    recorder.begin(completed_steps)
    return recorder


def history(client: MlflowClient) -> list[tuple[int, float]]:
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss"))


def test_what_was_not_confirmed_comes_again(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "metrics.jsonl"))
    for step in range(5):
        spool.add(step, 1000 + step, {"loss": float(step), "lr": math.nan})
    assert [m.step for m in spool.next(2)] == [0, 0, 1, 1]
    assert [m.step for m in spool.next(2)] == [0, 0, 1, 1]
    spool.confirm()
    rest = spool.next(10)
    assert [(m.key, m.step, m.timestamp) for m in rest[:2]] == [("loss", 2, 1002), ("lr", 2, 1002)]
    assert rest[0].value == 2.0 and math.isnan(rest[1].value)
    spool.confirm()
    assert spool.next(10) == []
    spool.close()


def test_half_a_line_is_no_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    spool = Spool(str(file))
    spool.add(1, 5, {"loss": 1.0})
    with file.open("a") as stream:
        stream.write('{"step": 2, "ti')
        stream.flush()
        assert [m.step for m in spool.next(10)] == [1]
        spool.confirm()
        stream.write('me": 6, "values": {"loss": 2.0}}\n')
    assert [m.step for m in spool.next(10)] == [2]
    spool.close()


def test_a_run_that_never_reached_mlflow_is_sent_by_the_next_start(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.jsonl"
    with monkeypatch.context() as away:
        away.setattr(run_module, "RunWriter", _refuse)
        first = recorder_of(tracking_uri, file, 0, flush_seconds=0.2)
        for step in range(1, 8):
            first.metrics(step, {"loss": float(step)})
        first.flush()
        first.finish("failed")
    # It goes on from step 5: the two later ones come again.
    second = recorder_of(tracking_uri, file, 5)
    for step in range(6, 10):
        second.metrics(step, {"loss": float(step)})
    second.finish("finished")
    assert history(client) == [(step, float(step)) for step in range(1, 10)]
    assert not file.exists()


def test_what_mlflow_had_before_the_restart_is_not_doubled(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    file = tmp_path / "metrics.jsonl"
    for completed, steps in ((0, range(1, 8)), (5, range(6, 10)), (9, range(0))):
        recorder = recorder_of(tracking_uri, file, completed)
        for step in steps:
            recorder.metrics(step, {"loss": float(step)})
        recorder.finish("preempted")
    assert history(client) == [(step, float(step)) for step in range(1, 10)]


def test_who_was_given_up_touches_nothing_of_the_next_start(
    tmp_path: Path, tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, held, released = tmp_path / "metrics.jsonl", threading.Event(), threading.Event()

    def frozen(self: MlflowClient, *args: Any, log_batch=MlflowClient.log_batch, **told: Any) -> Any:
        if told.get("metrics") and threading.current_thread() is first._thread:
            held.set()
            assert released.wait(60)
        return log_batch(self, *args, **told)

    monkeypatch.setattr(MlflowClient, "log_batch", frozen)
    first = recorder_of(tracking_uri, file, 0, flush_seconds=0.2)
    first.metrics(1, {"loss": 1.0})
    assert held.wait(60)
    first.finish("preempted")
    # In the same process, as after a rewind: what MLflow then takes of the first is all that the first does.
    second = recorder_of(tracking_uri, file, 1)
    second.metrics(2, {"loss": 2.0})
    released.set()
    first._thread.join(60)
    (experiment,) = [one for one in client.search_experiments() if one.name == "tests"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert file.exists() and "dalle2_train.status" not in run.data.tags
    second.metrics(3, {"loss": 3.0})
    second.finish("finished")
    assert history(client) == [(step, float(step)) for step in (1, 2, 3)]


def test_who_has_no_run_any_more_leaves_it_to_the_next_start(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    """As where ranks were cut off: another start's file is under the spool's name by then."""
    file = tmp_path / "metrics.jsonl"
    first = recorder_of(tracking_uri, file, 0)
    first.metrics(1, {"loss": 1.0})
    _wait_for(lambda: first.run_id is not None)
    second = recorder_of(tracking_uri, file, 1)
    second.metrics(2, {"loss": 2.0})
    time.sleep(0.5)  # the first looks ten times for what it has to send
    first.abandon()
    first.finish("failed")
    first._thread.join(60)
    (experiment,) = [one for one in client.search_experiments() if one.name == "tests"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING" and "dalle2_train.status" not in run.data.tags
    second.metrics(3, {"loss": 3.0})
    second.finish("finished")
    assert history(client) == [(1, 1.0), (2, 2.0), (3, 3.0)] and not file.exists()


def test_a_start_that_tells_nothing_leaves_mlflow_as_it_is(
    tmp_path: Path, tracking_uri: str, monkeypatch
) -> None:
    began: list[Any] = []
    monkeypatch.setattr(run_module, "RunWriter", began.append)
    MlflowRecorder(tracking_uri, "tests", "prior", {}, spool=str(tmp_path / "metrics.jsonl"))
    time.sleep(0.5)  # its thread would have looked ten times
    assert began == []


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def _refuse(*_: Any) -> None:
    raise ConnectionError("away")
