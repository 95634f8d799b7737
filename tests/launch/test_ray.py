"""Two real Ray workers: one is killed, and the run ends as if nothing had happened."""

import os
import signal
import threading
from pathlib import Path

import pytest
from processes import run_ranks_with
from ray_workers import kill_a_worker, wait_for_step
from toy_training import losses

from dalle2_train import storage
from dalle2_train.checkpoints.layout import committed_steps, stop_uri
from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.checkpoints.runs import list_runs, request_stop
from dalle2_train.errors import PreemptedError, RefusedError
from dalle2_train.launch import ray_fit, train

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.filterwarnings("default"),
              pytest.mark.usefixtures("cluster")]  # fmt: skip

STEPS = ("training.num_steps=40", "training.checkpoint_every_steps=10", "training.sample_every_steps=20")


def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint_and_nothing_else(
    make_job, monkeypatch, capfd: pytest.CaptureFixture[str]
):
    job = make_job("run", *STEPS)
    monkeypatch.setattr(ray_fit, "_LOOK_SECONDS", 0.2)
    killed = kill_a_worker(Path(job.run_uri), 25)
    result = train(job, workers=2)
    told = f"{job.run_uri}: workers were started again, going on from step {result.resumed_from}\n"
    assert capfd.readouterr().err.count(told) == 1
    assert killed and result.step == 40 and result.resumed_from in (10, 20, 30)
    assert read_manifest(f"{job.run_uri}/checkpoints/step-00000040").world_size == 2
    assert storage.exists(f"{job.run_uri}/samples/step-00000040.png")
    # The same two ranks as plain processes, undisturbed.
    plain = make_job("plain", *STEPS)
    assert [code for code, _ in run_ranks_with(plain, 2)] == [0, 0]
    assert losses(job.run_uri) == losses(plain.run_uri)
    # A finished run is not started again.
    monkeypatch.setattr("dalle2_train.launch.ray_trainer.train_on_ray", None)
    assert train(job, workers=2).resumed_from == 40


def test_what_would_only_happen_again_is_not_tried_again(make_job):
    job = make_job("run", *STEPS, "optimizer.learning_rate=1.0e30", "training.max_nonfinite_steps=2")
    with pytest.raises(RefusedError, match="2 steps in a row"):
        train(job, workers=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_driver_ends_with_a_checkpoint(make_job, number):
    before = signal.getsignal(number)
    job = make_job("run", "training.num_steps=100000", "training.sample_every_steps=0")
    threading.Thread(target=_ask_to_stop, args=(Path(job.run_uri), number), daemon=True).start()
    with pytest.raises(PreemptedError, match="goes on"):
        train(job, workers=2)
    assert committed_steps(job.run_uri) and storage.exists(stop_uri(job.run_uri))
    # Ray keeps nothing of it: a Ctrl-C after the training is this program's own again.
    assert signal.getsignal(number) is before


def test_a_run_that_waits_for_machines_in_vain_can_be_stopped(make_job, monkeypatch, capsys):
    """There is no rank to hear of it."""
    monkeypatch.setattr(ray_fit, "WAITING_SECONDS", 3.0)
    job = make_job("run", *STEPS, "workers.num_cpus=64")
    ask = threading.Timer(3.0, request_stop, (job.storage, job.name))
    ask.start()
    with pytest.raises(PreemptedError, match="waited for workers"):
        train(job, workers=1)
    assert "waiting for machines: 1 workers need 64 CPU" in capsys.readouterr().err
    assert not list_runs(job.storage, job.name)[0].is_trained


def _ask_to_stop(run: Path, number: int) -> None:
    wait_for_step(run, 3)
    os.kill(os.getpid(), number)
