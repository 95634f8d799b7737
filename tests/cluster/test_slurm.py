"""The Slurm script as it is, by a real Slurm on this machine."""

import shutil
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from cluster_files import SBATCH
from one_node_slurm import Slurm, missing_programs, one_node_slurm
from picture_shards import write_shards
from ray_workers import wait_for_step
from tiny_recipes import UPSAMPLER

from dalle2_train.checkpoints.layout import committed_steps
from dalle2_train.checkpoints.runs import list_runs
from dalle2_train.training.finished import finished

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def slurm():
    if missing := missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed: `make system-deps` does, as root")
    if _another_ray(seconds=30):
        pytest.skip("a Ray runs on this machine, and `ray symmetric-run` would end it with its own")
    with one_node_slurm() as slurm:
        yield slurm


@pytest.fixture
def node_folder():
    """Where a job's Ray lives: short, for its sockets' sake, and not yet there."""
    parent = tempfile.mkdtemp(prefix="n-", dir="/tmp")
    yield Path(parent) / "ray"
    shutil.rmtree(parent)


def _another_ray(seconds: float) -> bool:
    """Still there after a while in which one of an earlier test may end."""
    end = time.monotonic() + seconds
    while any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"])):
        if time.monotonic() > end:
            return True
        time.sleep(0.5)
    return False


def training(folder: Path, *settings: str) -> list[str]:
    words = ["upsampler/tiny", "--data", write_shards(folder), "--storage", str(folder / "runs"), "--name", "up",
             "--workers", "2"]  # fmt: skip
    for setting in (*UPSAMPLER, "training.sample_every_steps=0", *settings):
        words += ["--set", setting]
    return words


def wait_until(slurm: Slurm, job: str, wanted: str, seconds: float = 180) -> None:
    """Until what Slurm says of the job has `wanted` in it."""
    end = time.monotonic() + seconds
    while wanted not in (said := slurm.run("scontrol", "show", "job", job).stdout):
        assert time.monotonic() < end, said + slurm.logs()
        time.sleep(0.5)


def test_a_training_runs_to_its_end(slurm, tmp_path, node_folder):
    words = training(tmp_path, "training.num_steps=4")
    done = slurm.run("sbatch", "--wait", "--time=60", str(SBATCH), *words,
                     cwd=tmp_path, timeout=400, NODE_FOLDER=str(node_folder))  # fmt: skip
    (log,) = tmp_path.glob("dalle2-train-*.log")
    assert done.returncode == 0, done.stdout + log.read_text() + slurm.logs()
    assert "trained to step 4" in log.read_text()
    assert finished(str(tmp_path / "runs" / "up"), 4) is not None
    assert not node_folder.exists() and not _another_ray(seconds=20), "what the job left behind"


def test_the_trainings_refusal_is_the_jobs_code(slurm, tmp_path, node_folder):
    words = training(tmp_path, "training.num_steps=4")
    words[words.index("2")] = "3"  # divides no lanes
    done = slurm.run("sbatch", "--wait", "--time=60", str(SBATCH), *words,
                     cwd=tmp_path, timeout=200, NODE_FOLDER=str(node_folder))  # fmt: skip
    (log,) = tmp_path.glob("dalle2-train-*.log")
    assert done.returncode == 2, done.stdout + log.read_text() + slurm.logs()
    assert "--workers 3 does not divide" in log.read_text()


def test_before_the_time_is_up_it_saves_a_checkpoint_and_queues_again(slurm, tmp_path, node_folder):
    words = training(tmp_path, "training.num_steps=100000", "training.checkpoint_every_steps=100000")
    begun = slurm.run("sbatch", "--parsable", "--time=60", str(SBATCH), *words,
                      cwd=tmp_path, NODE_FOLDER=str(node_folder))  # fmt: skip
    job = begun.stdout.strip()
    assert job.isdecimal(), begun.stdout
    run = tmp_path / "runs" / "up"
    wait_for_step(run, 3)
    # As Slurm does it by itself ten minutes before the end: --signal=B:USR1@600.
    assert slurm.run("scancel", "--batch", "--signal=USR1", job).returncode == 0
    wait_until(slurm, job, "Restarts=1")
    wait_until(slurm, job, "JobState=PENDING")
    (status,) = list_runs(str(tmp_path / "runs"), "up")
    assert status.status == "preempted" and committed_steps(str(run)) == [status.step]
    assert slurm.run("scancel", job).returncode == 0
