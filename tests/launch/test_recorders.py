"""What is recorded of a run that was rewound, and restarted, reaches MLflow."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from toy_training import losses, train_alone

from dalle2_train import storage
from dalle2_train.checkpoints.layout import left_out_uri, metrics_uri
from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.launch.recorders import open_mlflow, send_the_rest
from dalle2_train.tracking.uri import connect
from dalle2_train.training.rewind import RewindError

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
MANIFEST = ModelManifest(kind="prior", config={})


@pytest.fixture
def job(make_job, tmp_path):
    return replace(make_job("run"), tracking=f"sqlite:///{tmp_path}/mlflow.db")


def points(job) -> list[tuple[int, float]]:
    client = connect(job.tracking)
    experiment = client.get_experiment_by_name(job.experiment)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss")]


def test_a_training_that_goes_back_is_recorded_on_both_ways(job):
    bad = {"nan_steps": (8, 9), "max_nonfinite_steps": 2, "rewind_steps": 1}
    with pytest.raises(RewindError, match="going back to step 4"):
        train_alone(job.run_uri, recorder=open_mlflow(job, MANIFEST, {}), **bad)
    train_alone(job.run_uri, recorder=open_mlflow(job, MANIFEST, {}), **bad)
    found = points(job)
    assert Counter(step for step, _ in found) == {2: 1, 4: 1, 6: 2, 8: 2, 10: 2, 12: 1}
    assert {
        (step, loss) for step, loss in enumerate(losses(job.run_uri), 1) if step in (2, 4, 6, 8, 12)
    } <= set(found)


def test_what_waited_since_a_rewind_is_sent_by_the_same_command(job):
    of_old = {"first": 9, "last": 9, "reason": "not finite", "is_done": True}
    storage.publish_json(left_out_uri(job.run_uri), [of_old])
    sent = [{"step": step, "time": 1000 + step, "values": {"loss": step / 2}} for step in range(1, 9)]
    again, repeated = (
        [line | {"time": time, "values": {"loss": -1.0}} for line in sent[4:]] for time in (2000, 3000)
    )
    for lines in (sent, again, repeated):
        storage.publish_bytes(
            metrics_uri(job.run_uri), "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        )
        send_the_rest(job, replace(MANIFEST, step=8))
        storage.publish_json(left_out_uri(job.run_uri), [of_old, of_old | {"to": 4, "when": 1500}])
    assert sorted(points(job)) == sorted(
        [(step, step / 2) for step in range(1, 9)] + [(s, -1.0) for s in (5, 6, 7, 8)]
    )
