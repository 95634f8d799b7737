"""A training whose tracking server is away to the very end: the same command sends it all, once it is back."""

from dataclasses import replace
from pathlib import Path

import pytest
from toy_training import losses

from dalle2_train.checkpoints.layout import metrics_uri
from dalle2_train.launch import train
from dalle2_train.storage import exists
from dalle2_train.tracking.uri import connect

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_a_finished_run_is_sent_by_the_same_command(make_job, monkeypatch, tmp_path: Path, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    job = make_job(
        "run", "training.num_steps=4", "training.sample_every_steps=0", "training.log_every_steps=1"
    )
    away = replace(job, tracking="http://127.0.0.1:9")
    assert train(away).step == 4
    assert exists(metrics_uri(job.run_uri)) and "training goes on" in caplog.text
    there = replace(job, tracking=f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        assert train(there).resumed_from == 4
    assert not exists(metrics_uri(job.run_uri))
    client = connect(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == job.experiment]
    (run,) = client.search_runs([experiment.experiment_id])
    points = sorted((one.step, one.value) for one in client.get_metric_history(run.info.run_id, "loss"))
    assert points == list(enumerate(losses(job.run_uri), 1)) and run.info.status == "FINISHED"
