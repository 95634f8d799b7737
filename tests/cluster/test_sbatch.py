"""The Slurm script, run as it is by bash, with Slurm and Ray played by small scripts."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_files import SBATCH

# Each writes its arguments down as a line of JSON first.
_TELL = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["TOLD"], "a") as file:
    print(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]), file=file)
with open(os.environ["TOLD"] + ".env", "w") as file:
    json.dump(dict(os.environ), file)
"""
_ACTORS = {
    "srun": 'start = sys.argv.index("bash")\nos.execvp("bash", sys.argv[start:])\n',
    "scontrol": "",
    "hostname": 'print("10.1.2.3 192.168.0.1 ")\n',
    # As `ray symmetric-run` on the head, which says 0 where Ray does not start.
    "ray": (
        'if os.environ.get("RAY_FAILS"): sys.exit(0)\n'
        'start = sys.argv.index("--")\nimport subprocess\nsys.exit(subprocess.run(sys.argv[start + 1:]).returncode)\n'
    ),
    "dalle2-train": (
        "import pathlib, time\n"
        'asked = pathlib.Path(os.environ["TOLD"] + ".stop")\n'
        'if sys.argv[1] == "runs": asked.touch()\n'
        'elif os.environ["CODE"] == "until stopped":\n'
        "    while not asked.exists(): time.sleep(0.01)\n"
        "    sys.exit(75)\n"
        'else: sys.exit(int(os.environ["CODE"]))\n'
    ),
}

TRAINING = ("upsampler/tiny", "--data", "a folder", "--storage", "runs", "--name=up")


@pytest.fixture
def start(tmp_path) -> Callable[..., subprocess.Popen[str]]:
    """start(arguments, environment) → the script as Slurm's batch host runs it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, does in _ACTORS.items():
        (programs / name).write_text(_TELL + does)
        (programs / name).chmod(0o755)

    def begin(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        env = {
            "PATH": f"{programs}:{os.environ['PATH']}", "TOLD": str(tmp_path / "told"), "TMPDIR": str(tmp_path),
            "SLURM_JOB_ID": "70012", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "16",
            "NODE_FOLDER": str(tmp_path / "node"), "CODE": "0", **environment,
        }  # fmt: skip
        return subprocess.Popen(["bash", SBATCH, *arguments], env=env, stderr=subprocess.PIPE, text=True)

    return begin


@pytest.fixture
def told(tmp_path) -> Callable[[str], list[list[str]]]:
    """told(program) → the arguments of each of its calls."""

    def read(program: str) -> list[list[str]]:
        lines = (tmp_path / "told").read_text().splitlines() if (tmp_path / "told").exists() else []
        return [words for name, *words in map(json.loads, lines) if name == program]

    return read


def environment(tmp_path: Path) -> dict[str, Any]:
    """That of the program that was called last."""
    return json.loads((tmp_path / "told.env").read_text())


def finish(script: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = script.communicate(timeout=20)
    return script.returncode, errors


def test_it_is_a_script_that_bash_reads():
    assert subprocess.run(["bash", "-n", SBATCH]).returncode == 0


def test_the_users_arguments_reach_the_training_as_they_are(start, told):
    assert finish(start(*TRAINING, "--workers", "8", "--set", "training.num_steps=3")) == (0, "")
    (arguments,) = told("dalle2-train")
    assert arguments == ["train", *TRAINING, "--workers", "8", "--set", "training.num_steps=3"]


@pytest.mark.parametrize(("gpus", "workers"), [({}, "2"), ({"SLURM_GPUS_ON_NODE": "4"}, "8")])
def test_there_is_a_worker_for_every_gpu_or_for_every_node(start, told, gpus, workers):
    assert finish(start(*TRAINING, **gpus)) == (0, "")
    (arguments,) = told("dalle2-train")
    assert arguments == ["train", *TRAINING, "--workers", workers]
    (ray,) = told("ray")
    assert f"--num-gpus={gpus.get('SLURM_GPUS_ON_NODE', 0)}" in ray and "--num-cpus=16" in ray


def test_ray_has_a_token_and_a_folder_of_the_jobs_own_and_the_training_knows_its_address(
    start, told, tmp_path
):
    assert finish(start(*TRAINING)) == (0, "")
    (ray,) = told("ray")
    assert ray[:5] == ["symmetric-run", "--address", "10.1.2.3:20012", "--min-nodes", "2"]
    assert "--dashboard-host=127.0.0.1" in ray
    seen = environment(tmp_path)
    assert seen["RAY_ADDRESS"] == "10.1.2.3:20012" and seen["RAY_TMPDIR"] == str(tmp_path / "node")
    assert seen["RAY_AUTH_MODE"] == "token"
    assert len(seen["RAY_AUTH_TOKEN"]) == 64 and int(seen["RAY_AUTH_TOKEN"], 16)
    assert not (tmp_path / "node").exists(), "what Ray left behind"


def test_two_jobs_have_two_tokens_and_one_of_the_users_is_taken(start, tmp_path):
    tokens = []
    for more in ({}, {}, {"RAY_AUTH_TOKEN": "mine"}):
        finish(start(*TRAINING, **more))
        tokens.append(environment(tmp_path)["RAY_AUTH_TOKEN"])
    assert tokens[0] != tokens[1] and tokens[2] == "mine"


def test_a_job_of_one_node_stays_on_the_machine(start, told):
    assert finish(start(*TRAINING, SLURM_JOB_NUM_NODES="1")) == (0, "")
    assert "127.0.0.1:20012" in told("ray")[0]


@pytest.mark.parametrize("code", [1, 2, 3])
def test_the_trainings_code_is_the_jobs_and_rays_logs_stay(start, told, tmp_path, code):
    assert finish(start(*TRAINING, CODE=str(code)))[0] == code
    assert told("scontrol") == [] and (tmp_path / "node").exists()


def test_a_ray_that_did_not_start_is_no_success(start, told):
    code, errors = finish(start(*TRAINING, RAY_FAILS="yes"))
    assert code == 1 and "Ray did not start" in errors
    assert told("dalle2-train") == []


def test_when_the_time_is_nearly_up_the_training_saves_and_the_job_queues_again(start, told, tmp_path):
    script = start(*TRAINING, CODE="until stopped")
    while not told("dalle2-train"):
        time.sleep(0.02)
    script.send_signal(10)  # USR1
    code, errors = finish(script)
    assert code == 75 and "asking up for a checkpoint" in errors
    assert told("dalle2-train")[1] == ["runs", "--storage", "runs", "up", "--stop"]
    assert told("scontrol") == [["requeue", "70012"]]


def test_one_that_somebody_asked_to_stop_stays_stopped(start, told):
    assert finish(start(*TRAINING, CODE="75"))[0] == 75
    assert told("scontrol") == []


@pytest.mark.parametrize("arguments", [(), ("upsampler/tiny", "--data", "x", "--name", "up")])
def test_without_storage_or_name_it_begins_nothing(start, told, arguments):
    code, errors = finish(start(*arguments))
    assert code == 2 and "--storage and --name" in errors
    assert told("srun") == []


def test_a_folder_of_somebody_else_is_not_taken(start, told, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "node").symlink_to(tmp_path / "theirs")
    code, errors = finish(start(*TRAINING))
    assert code == 1 and "belongs to somebody else" in errors and told("ray") == []
