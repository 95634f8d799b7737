"""After a rewind MLflow has each point once: of the history that was given up as of the one after it."""

import random
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from PIL import Image

from dalle2_train.tracking import run as run_module
from dalle2_train.tracking.delivered import Rewind
from dalle2_train.tracking.run import MlflowRecorder
from dalle2_train.tracking.spool import Spool
from dalle2_train.tracking.writer import RunSpec, RunWriter

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
Points = list[tuple[int, float]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_INTERVAL_SECONDS", 0.05)


def recorder_of(tracking_uri: str, spool: Path, completed_steps: int, *rewinds: Rewind) -> MlflowRecorder:
    recorder = MlflowRecorder(
        tracking_uri, "tests", "run", {}, spool=str(spool), system_metrics=False, rewinds=rewinds
    )
    recorder.begin(completed_steps)
    return recorder


def run_id(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run.info.run_id


def history(client: MlflowClient, key: str = "loss") -> Points:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id(client), key))


def points(number: int, *steps: int) -> Points:
    """Of the history after so many rewinds."""
    return [(step, 100.0 * number + step) for step in steps]


def test_what_came_after_is_there_beside_what_was_given_up(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    spool, rewinds = tmp_path / "metrics.jsonl", []
    for number, completed, steps in ((0, 0, range(1, 11)), (1, 4, range(5, 8)), (1, 6, range(7, 9)),
                                     (2, 2, range(3, 6)), (2, 5, range(6, 13))):  # fmt: skip
        if number > len(rewinds):
            rewinds.append(Rewind(completed, int(time.time() * 1000)))
        recorder = recorder_of(tracking_uri, spool, completed, *rewinds)
        for step, value in points(number, *steps):
            recorder.metrics(step, {"loss": value} | ({"rare": value} if step in (6, 8) else {}))
        recorder.finish("preempted")
    wanted = points(0, *range(1, 11)) + points(1, *range(5, 9)) + points(2, *range(3, 13))
    assert history(client) == sorted(wanted)
    assert history(client, "rare") == sorted(points(0, 6, 8) + points(1, 6, 8) + points(2, 6, 8))


@pytest.mark.parametrize("seed", range(6))
def test_kills_and_rewinds_at_any_moment_lose_and_double_nothing(
    seed: int, tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    draw, now, file = random.Random(seed), 1000, str(tmp_path / "metrics.jsonl")
    rewinds: list[Rewind] = []
    values: dict[int, float] = {}
    completed, told = 0, set[tuple[int, float]]()
    for attempt in range(10):
        writer = RunWriter(RunSpec(tracking_uri, "tests", "run", {}, {}, False, tuple(rewinds)))
        spool, end = Spool(file, completed), completed + draw.randint(2, 6)
        if is_last := attempt == 9:  # all steps that there have been are sent
            end = max([end, *values])
        for step in range(completed + 1, end + 1):
            value = values.setdefault(step, 100.0 * len(rewinds) + step)
            told.add((step, value))
            spool.add(step, now := now + 1, {"loss": value})
            while draw.random() < 0.5 or is_last:
                if not (sent := spool.next(draw.randint(1, 3))):
                    break
                writer.metrics(sent)
                if draw.random() < 0.8:
                    spool.confirm()
        spool.close()
        if draw.random() < 0.5:  # killed: from some checkpoint on it all comes again, at other times
            completed = draw.randint(0, end)
        else:
            completed = draw.randint(0, end - 1)
            rewinds.append(Rewind(completed, now))
            values = {step: value for step, value in values.items() if step <= completed}
    found = history(client)
    assert len(found) == len(set(found)) and set(values.items()) <= set(found) <= told


def test_a_clock_that_is_behind_the_rewinds_does_no_harm(
    tmp_path: Path, tracking_uri: str, client: MlflowClient
) -> None:
    spool, ahead = tmp_path / "metrics.jsonl", int(time.time() * 1000) + 3_600_000
    for number, completed, last in ((0, 0, 6), (1, 4, 6), (1, 4, 7)):
        recorder = recorder_of(tracking_uri, spool, completed, *[Rewind(4, ahead)][:number])
        for step, value in points(number, *range(completed + 1, last + 1)):
            recorder.metrics(step, {"loss": value})
        recorder.finish("preempted")
    assert history(client) == sorted(points(0, *range(1, 7)) + points(1, 5, 6, 7))


def test_pictures_are_drawn_again_once(tmp_path: Path, tracking_uri: str, client: MlflowClient) -> None:
    rewinds = [Rewind(4, 1), Rewind(5, 2)]
    for number, steps in ((0, (4, 6, 8)), (0, (6, 8)), (1, (6, 8)), (1, (6, 8)), (2, (6, 8)), (2, (8,))):
        recorder = recorder_of(tracking_uri, tmp_path / "metrics.jsonl", 0, *rewinds[:number])
        for step in steps:
            recorder.image("samples", step, Image.new("RGB", (2, 2)))
        recorder.finish("preempted")
    files = client.list_artifacts(run_id(client), "images")
    steps = [file.path.split("step")[1][1] for file in files if file.path.endswith(".png")]
    assert sorted(steps) == ["4", *"666", *"888"]
