import logging
import re
import subprocess
import sys
import threading
import time
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from dalle2_train.errors import InputError
from dalle2_train.tracking import run as run_module
from dalle2_train.tracking.run import MlflowRecorder

# MLflow's own, inside SQLAlchemy.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_INTERVAL_SECONDS", 0.05)


def _record(tracking_uri: str, name: str = "decoder", params: Any = None, **options: Any) -> MlflowRecorder:
    options = {"system_metrics": False, **options}
    recorder = MlflowRecorder(
        tracking_uri, "tests", name, params or {"seed": 0}, {"family": "decoder"}, **options
    )
    recorder.begin(0)
    return recorder


def _runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name("tests")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def _history(client: MlflowClient, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(_runs(client)[0].info.run_id, key))


def test_metrics_params_tags_and_status_arrive(tracking_uri: str, client: MlflowClient) -> None:
    recorder = _record(tracking_uri, params={"optimizer": {"learning_rate": 1e-4}, "note": "x" * 9000})
    for step in range(2500):
        recorder.metrics(step, {"train/loss": 1 / (step + 1), "lr": 1e-4})
    recorder.finish("finished")
    (run,) = _runs(client)
    assert run.info.run_name == "decoder"
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.learning_rate"] == "0.0001"
    assert run.data.tags["family"] == "decoder"
    assert _history(client, "train/loss") == [(step, 1 / (step + 1)) for step in range(2500)]


def test_documents_arrive_and_replace_earlier_ones(tracking_uri: str, client: MlflowClient) -> None:
    for kept in (7, 8):
        recorder = _record(tracking_uri)
        recorder.document("data/ledger.json", {"kept": kept, "filtered": {}})
        recorder.finish("finished")
    (run,) = _runs(client)
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/data/ledger.json") == {
        "kept": 8,
        "filtered": {},
    }


def test_a_restart_goes_on_in_the_same_run(tracking_uri: str, client: MlflowClient) -> None:
    first = _record(tracking_uri, params={"seed": 0, "world_size": 2})
    for step in (1, 2, 3, 4):
        first.metrics(step, {"loss": float(step)})
    first.finish("failed")
    assert _runs(client)[0].info.status == "FAILED"

    # From the checkpoint of step 2, on other workers: 3 and 4 come again.
    second = _record(tracking_uri, params={"seed": 0, "world_size": 1})
    while second.run_id is None:
        time.sleep(0.01)
    for step in (3, 4, 5):
        second.metrics(step, {"loss": float(step)})
    deadline = time.monotonic() + 120
    while len(_history(client, "loss")) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _runs(client)[0].info.status == "RUNNING"
    second.finish("preempted")

    (run,) = _runs(client)
    assert run.info.status == "KILLED"
    assert _history(client, "loss") == [(step, float(step)) for step in (1, 2, 3, 4, 5)]
    assert run.data.params["world_size"] == "2"
    assert run.data.tags["changed.world_size"] == "1"


def test_another_name_is_another_run(tracking_uri: str, client: MlflowClient) -> None:
    for name in ("prior", 'pri"or', "pri'or"):
        _record(tracking_uri, name).finish("finished")
    assert sorted(run.info.run_name or "" for run in _runs(client)) == sorted(["prior", 'pri"or', "pri'or"])


def test_the_same_name_in_another_storage_is_another_run(tracking_uri: str, client: MlflowClient) -> None:
    for place in ("/a/decoder", "/b/decoder", "/a/decoder"):
        recorder = MlflowRecorder(
            tracking_uri, "tests", "decoder", {}, {"run_uri": place}, system_metrics=False
        )
        recorder.metrics(1, {"loss": 1.0})
        recorder.finish("finished")
    assert sorted(run.data.tags["run_uri"] for run in _runs(client)) == ["/a/decoder", "/b/decoder"]


def test_pictures_become_a_series_without_doubles(tracking_uri: str, client: MlflowClient) -> None:
    for steps in ((10, 20), (20, 30)):
        recorder = _record(tracking_uri)
        for step in steps:
            recorder.image("samples", step, Image.new("RGB", (8, 8), (step, 0, 0)))
        recorder.finish("finished")
    (run,) = _runs(client)
    files = [f.path for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith(".png")]
    assert sorted({int(re.findall(r"step.(\d+)", path)[0]) for path in files}) == [10, 20, 30]
    assert len(files) == 3
    with Image.open(client.download_artifacts(run.info.run_id, min(files))) as image:
        assert image.size == (8, 8)


def test_system_metrics_are_recorded(
    tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    recorder = _record(tracking_uri, system_metrics=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = [key for run in _runs(client) for key in run.data.metrics]
        if "system/cpu_utilization_percentage" in found:
            break
        time.sleep(0.2)
    recorder.finish("finished")
    assert "system/cpu_utilization_percentage" in found


def test_a_dead_server_costs_no_time_and_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING, "dalle2_train"):
        start, worked = time.monotonic(), time.thread_time()
        recorder = MlflowRecorder("http://127.0.0.1:9", "tests", "x", {}, flush_seconds=3)
        for step in range(1000):
            recorder.metrics(step, {"loss": 1.0})
            recorder.image("samples", step, Image.new("RGB", (2, 2)))
        # Of its own time, which a busy machine does not lengthen: a thousand refused requests would take more.
        assert time.thread_time() - worked < 1
        recorder.finish("finished")
        assert time.monotonic() - start < 100
    lines = [record for record in caplog.records if record.name.startswith("dalle2_train")]
    assert len(lines) == 1
    assert "http://127.0.0.1:9" in lines[0].getMessage()


def test_no_line_tells_a_password(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING):
        MlflowRecorder("http://user:hunter2@127.0.0.1:9", "tests", "x", {}).finish("finished")
    # MLflow's own words, which the line repeats, have the whole address.
    assert "MLflow at http://***@127.0.0.1:9: " in caplog.text and "hunter2" not in caplog.text


def test_what_failed_once_is_sent_later(
    tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = MlflowClient.log_batch, iter([True, True, False])

    def flaky(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        if next(failures, False):
            raise ConnectionError("away")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", flaky)
    recorder = _record(tracking_uri)
    for step in range(20):
        recorder.metrics(step, {"loss": float(step)})
    recorder.finish("finished")
    assert _history(client, "loss") == [(step, float(step)) for step in range(20)]


def test_a_slow_store_does_not_hold_a_step_up(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(run_module, "RunWriter", lambda spec: released.wait(200))
    recorder = _record(tracking_uri, flush_seconds=0.2)
    start = time.monotonic()
    for step in range(100):
        recorder.metrics(step, {"loss": 1.0})
    recorder.finish("finished")
    assert time.monotonic() - start < 100
    released.set()


@pytest.mark.slow
def test_another_process_adds_to_the_run(tracking_uri: str, client: MlflowClient) -> None:
    _record(tracking_uri).finish("preempted")
    code = (
        "from dalle2_train.tracking.run import MlflowRecorder\n"
        f"r = MlflowRecorder({tracking_uri!r}, 'tests', 'decoder', {{'seed': 0}}, system_metrics=False)\n"
        "r.metrics(7, {'loss': 0.5})\n"
        "r.finish('finished')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    (run,) = _runs(client)
    assert run.info.status == "FINISHED"
    assert _history(client, "loss") == [(7, 0.5)]


def test_a_wrong_uri_is_told_at_once() -> None:
    with pytest.raises(InputError):
        MlflowRecorder("file:/tmp/mlruns", "tests", "x", {})
