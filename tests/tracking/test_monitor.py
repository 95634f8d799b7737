"""The machine is watched again once MLflow is back, in steps that go on, and nothing of it tells a password."""

import logging
import threading
import time
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from dalle2_train.tracking import run as run_module
from dalle2_train.tracking.monitor import Monitor
from dalle2_train.tracking.run import MlflowRecorder

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
KEY = "system/cpu_utilization_percentage"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_INTERVAL_SECONDS", 0.05)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")


def _refuse(*_: object, **__: object) -> None:
    raise ConnectionError("http://user:hunter2@host is away")


def _wait(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def _is_watched() -> bool:
    return any(thread.name == "SystemMetricsMonitor" for thread in threading.enumerate())


def test_it_goes_on_after_an_outage(
    tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = MlflowRecorder(tracking_uri, "tests", "prior", {})
    recorder.begin(0)
    try:
        _wait(lambda: recorder.run_id)

        def steps() -> list[int]:
            return sorted(one.step for one in client.get_metric_history(str(recorder.run_id), KEY))

        _wait(steps)
        with monkeypatch.context() as away:
            away.setattr(MlflowClient, "get_run", _refuse)
            _wait(lambda: not _is_watched())
        seen = len(steps())
        recorder.metrics(1, {"loss": 1.0})
        _wait(lambda: len(steps()) > seen)
    finally:
        recorder.finish("finished")
    assert steps() == list(range(len(steps()))) and not _is_watched()


def test_its_warnings_tell_no_password(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Monitor("no run", tracking_uri)
    logger = logging.getLogger("mlflow.system_metrics.system_metrics_monitor")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])  # MLflow's do not reach pytest's
    monkeypatch.setattr(MlflowClient, "get_run", _refuse)
    watcher.monitor()
    assert "http://***@host is away" in caplog.text and "hunter2" not in caplog.text
