"""`ray job submit` to a Ray that asks for a token: a training to its end, and nothing for those without."""

import contextlib
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from metric_names import COUNTERS, GAUGES
from picture_shards import write_shards
from tiny_recipes import UPSAMPLER
from token_ray import Head, fetch, token_ray

from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.training.finished import finished

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

WITHOUT = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": ""}
WITH_ANOTHER = {"RAY_AUTH_TOKEN": "0" * 64}


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    pytest.importorskip("aiohttp_cors", reason="jobs need Ray's dashboard: pip install dalle2-train[cluster]")
    with token_ray(tmp_path_factory.mktemp("ray")) as head:
        yield head


def submit(head: Head, *words: str, **more: str):
    return head.run("ray", "job", "submit", "--address", head.dashboard, *words, **more)


def training(folder: Path, workers: int) -> list[str]:
    words = [sys.executable, "-m", "dalle2_train.cli", "train", "upsampler/tiny", "--data", write_shards(folder),
             "--storage", str(folder / "runs"), "--name", "up", "--workers", str(workers)]  # fmt: skip
    for setting in (*UPSAMPLER, "training.num_steps=4", "training.sample_every_steps=0"):
        words += ["--set", setting]
    return words


def test_beside_it_a_training_without_an_address_has_a_ray_of_its_own(head, tmp_path):
    done = head.run(*training(tmp_path, 1), timeout=400)
    assert done.returncode == 0 and "trained to step 4" in done.stdout, done.stdout


def test_a_training_is_submitted_and_runs_to_its_end(head, tmp_path):
    done = submit(head, "--submission-id", "up-1", "--", *training(tmp_path, 2), timeout=400)
    assert done.returncode == 0, done.stdout
    assert "trained to step 4" in done.stdout and head.token not in done.stdout
    result = finished(str(tmp_path / "runs" / "up"), 4)
    assert result is not None and result.checkpoint is not None
    assert read_manifest(result.checkpoint).world_size == 2
    # It was a job of this cluster, by Ray's own account.
    status = head.run("ray", "job", "status", "--address", head.dashboard, "up-1")
    assert "succeeded" in status.stdout.lower(), status.stdout


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("0" * 64, 403)])
def test_the_dashboard_refuses_who_has_not_the_token(head, tmp_path, token, status):
    mark = tmp_path / "was here"
    assert head.ask("/api/jobs/", token)[0] == status
    assert head.ask("/api/jobs/", token, {"entrypoint": f"touch {shlex.quote(str(mark))}"})[0] == status
    assert head.ask("/api/prometheus/sd", token)[0] == status
    assert head.ask("/api/jobs/", head.token)[0] == 200
    assert not mark.exists()


@pytest.mark.parametrize("more", [WITHOUT, WITH_ANOTHER], ids=["without", "with another"])
def test_rays_own_commands_are_refused_without_the_token(head, tmp_path, more):
    mark = tmp_path / "was here"
    refused = submit(head, "--", "touch", str(mark), **more)
    assert refused.returncode != 0 and "uthenticat" in refused.stdout, refused.stdout
    assert gcs_answers(head) and not gcs_answers(head, **more)
    assert not mark.exists()


def test_prometheus_finds_the_nodes_and_the_metrics_by_the_dashboards_names(head):
    script = Path(__file__).parents[1] / "support" / "metrics_job.py"
    started = submit(
        head, "--no-wait", "--submission-id", "metrics", "--", sys.executable, str(script), timeout=120
    )
    assert started.returncode == 0, started.stdout
    end, seen = time.monotonic() + 90, {}
    while set(seen) != {*GAUGES, *COUNTERS} and time.monotonic() < end:
        time.sleep(2)
        seen = scrape(head)
    assert seen == {
        **{name: ("gauge", number + 0.5) for number, name in enumerate(GAUGES)},
        **dict.fromkeys(COUNTERS, ("counter", 3.0)),
    }
    head.run("ray", "job", "stop", "--address", head.dashboard, "--no-wait", "metrics")


def gcs_answers(head: Head, **more: str) -> bool:
    """Does the head's other door, which drivers and nodes come in by, tell how the cluster is?"""
    try:
        return head.run("ray", "status", "--address", head.gcs, timeout=60, **more).returncode == 0
    except subprocess.TimeoutExpired:  # it tries for a while before it gives up
        return False


def scrape(head: Head) -> dict[str, tuple[str, float]]:
    """Name → (type, value) of the metrics of run `up`, from every node that the dashboard tells of."""
    found: dict[str, tuple[str, float]] = {}
    for target in [target for group in head.metrics_targets() for target in group["targets"]]:
        text = ""
        with contextlib.suppress(OSError):  # listed before it listens
            text = fetch(f"http://{target}/metrics")[1].decode()
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
        for name, labels, value in re.findall(r"^(ray_dalle2_\w+)\{(.*)\} (\S+)$", text, re.M):
            if 'run="up"' in labels:
                found[name] = (types[name], float(value))
    return found
