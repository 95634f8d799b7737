"""One run of MLflow's for one training, wherever that is kept, and nothing secret about where."""

import pytest
from mlflow import MlflowClient

from dalle2_train.tracking.run import MlflowRecorder

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def record(tracking_uri: str, place: str | None) -> None:
    tags = {} if place is None else {"run_uri": place}
    MlflowRecorder(tracking_uri, "tests", "prior", {}, tags, system_metrics=False).finish("finished")


def places(client: MlflowClient) -> list[str | None]:
    (experiment,) = [one for one in client.search_experiments() if one.name == "tests"]
    runs = client.search_runs([experiment.experiment_id])
    return sorted((run.data.tags.get("run_uri") for run in runs), key=str)


@pytest.mark.parametrize(("scheme", "user"), [("abfss", "container"), ("hdfs", "user:hunter2")])
def test_a_place_with_a_user_is_found_again(
    scheme: str, user: str, tracking_uri: str, client: MlflowClient
) -> None:
    for _ in range(3):
        record(tracking_uri, f"{scheme}://{user}@host/run")
    assert places(client) == [f"{scheme}://***@host/run"]


def test_a_place_whose_password_was_changed_is_found_again(tracking_uri: str, client: MlflowClient) -> None:
    for password in ("hunter2", "hunter3"):
        record(tracking_uri, f"hdfs://user:{password}@host/run")
    assert places(client) == ["hdfs://***@host/run"]


def test_nothing_secret_is_there_even_while_a_run_is_made(
    tracking_uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, create = [], MlflowClient.create_run
    monkeypatch.setattr(
        MlflowClient, "create_run", lambda *args, **told: made.append(told) or create(*args, **told)
    )
    record(tracking_uri, "hdfs://user:hunter2@host/run")
    assert made[0]["tags"]["run_uri"] == "hdfs://***@host/run" and "hunter2" not in str(made)


def test_two_places_that_read_the_same_are_two_runs(tracking_uri: str, client: MlflowClient) -> None:
    for user in ("a", "b", "a", "b"):
        record(tracking_uri, f"hdfs://{user}@host/run")
    assert places(client) == ["hdfs://***@host/run"] * 2


def test_a_run_without_a_place_is_no_run_with_one(tracking_uri: str, client: MlflowClient) -> None:
    for place in ("/a/run", None, "/a/run", None):
        record(tracking_uri, place)
    assert places(client) == ["/a/run", None]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("/a/run", "/a/run"),
        ("hdfs://***@host/run", "hdfs://a@host/run"),
        ("hdfs://a@host/run", "hdfs://a@host/run"),  # it was killed between making the run and describing it
    ],
)
def test_an_older_versions_run_is_gone_on_with_by_the_first_that_comes(
    theirs: str, ours: str, tracking_uri: str, client: MlflowClient
) -> None:
    experiment = client.create_experiment("tests")
    older = client.create_run(experiment, tags={"dalle2_train.name": "prior", "run_uri": theirs})
    for place in ("hdfs://b@other/run", ours, "hdfs://c@host/run", ours):
        record(tracking_uri, place)
    runs = client.search_runs([experiment])
    assert len(runs) == 3
    (same,) = [run for run in runs if run.info.run_id == older.info.run_id]
    assert same.data.tags["run_uri"] == ours.replace("a@", "***@") and "dalle2_train.status" in same.data.tags


def test_what_an_older_version_was_killed_at_is_not_anothers(tracking_uri: str, client: MlflowClient) -> None:
    experiment = client.create_experiment("tests")
    client.create_run(experiment, tags={"dalle2_train.name": "prior", "run_uri": "hdfs://a@host/run"})
    record(tracking_uri, "hdfs://b@host/run")
    assert len(client.search_runs([experiment])) == 2
