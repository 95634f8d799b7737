"""The doctor names every fault of a cluster's nodes, and finds none where there is none."""

import json
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Nodes, can_have_nodes, nodes
from picture_shards import write_shards
from tiny_recipes import UPSAMPLER

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600),
    pytest.mark.skipif(not can_have_nodes(), reason="needs root and iproute2"),
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Nodes]:
    """A head, a healthy node, and one that cannot write to the folder of all runs."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "runs").mkdir()
    with nodes(folder) as cluster:
        cluster.start(0)
        cluster.wait(1)
        cluster.start(1)
        cluster.start(1, before=_read_only(folder / "runs"))
        cluster.wait(3)
        yield cluster


def test_a_storage_that_one_worker_cannot_write_is_refused_before_the_first_step(cluster: Nodes):
    runs = cluster.folder / "runs"
    words = ["train", "upsampler/tiny", "--data", write_shards(cluster.folder / "set"), "--storage", str(runs),
             "--name", "up", "--workers", "2"]  # fmt: skip
    for setting in (*UPSAMPLER, "training.num_steps=4", "training.sample_every_steps=0"):
        words += ["--set", setting]
    done = cluster.run([sys.executable, "-m", "dalle2_train.cli", *words], check=False)
    assert (
        done.returncode == 2 and f"{runs / 'up'}: cannot be written (Read-only file system)" in done.stdout
    ), done.stdout
    assert not (runs / "up" / "losses.jsonl").exists() and not (runs / "up" / "lease.json").exists()


def test_a_folder_of_that_name_on_every_machine_is_no_storage(cluster: Nodes):
    """Each node has a /tmp of its own."""
    words = ["train", "upsampler/tiny", "--data", str(cluster.folder / "set" / "shards"), "--storage", "/tmp/runs",
             "--name", "up", "--workers", "2"]  # fmt: skip
    for setting in (*UPSAMPLER, "training.num_steps=4", "training.sample_every_steps=0"):
        words += ["--set", setting]
    done = cluster.run([sys.executable, "-m", "dalle2_train.cli", *words], check=False)
    assert done.returncode == 2 and "is another folder on this rank's machine" in done.stdout, done.stdout[
        -3000:
    ]


def test_each_fault_is_named_and_the_healthy_nodes_are_well(cluster: Nodes):
    folder = cluster.folder
    for place in (_without_package(folder), _old(folder), _late(folder)):
        ours = "" if place.name == "bare" else f"{os.pathsep}{cluster.python_path}"
        cluster.start(1, environment={"PYTHONPATH": f"{place}{ours}"})
    cluster.start(1, num_gpus=99)
    cluster.wait(7)
    done = cluster.run(
        [sys.executable, "-m", "dalle2_train.cli", "doctor", "--json", "--storage", str(folder / "runs")],
        check=False,
    )
    found = json.loads(done.stdout[done.stdout.index("{") :])
    checks = {check["name"]: check for check in found["checks"] if check["name"].startswith("node ")}
    head, well, locked, bare, old, late, blind = (checks[f"node {node.address}"] for node in cluster.nodes)
    assert done.returncode == 3 and not found["ok"] and len(checks) == 7
    assert head["ok"] and well["ok"], (head, well)
    assert not bare["ok"] and "dalle2_train is not installed there" in bare["detail"]
    assert not old["ok"] and "torch is 2.0.0 there" in old["detail"]
    assert "lightning 2.6.2: pip uninstall it" in old["detail"]
    assert not locked["ok"] and "cannot be written from there" in locked["detail"]
    assert not late["ok"] and "its clock is" in late["detail"] and "synchronise it" in late["detail"]
    # Each has its own fault, and no other's.
    words = ("not installed there", "torch is 2.0.0", "cannot be written", "its clock is", "promises 99 GPUs")
    told = [[word for word in words if word in one["detail"]] for one in (bare, old, locked, late, blind)]
    assert told == [[word] for word in words]


def _read_only(folder: Path) -> str:
    return f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"


def _without_package(folder: Path) -> Path:
    """Of the Python there, what would find this repository is taken away."""
    place = folder / "bare"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "dalle2_train":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Absent())
    """)
    )
    return place


def _old(folder: Path) -> Path:
    """Metadata of other packages, found first."""
    place = folder / "old"
    for name, version in (("torch", "2.0.0"), ("lightning", "2.6.2")):
        info = place / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return place


def _late(folder: Path) -> Path:
    """What this package reads from the clock there. All of Python would not do: Ray's own processes read the kernel's,
    and wait for what is in the past."""
    place = folder / "late"
    place.mkdir()
    (place / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import sys
        import time

        real = time.time

        def late():
            caller = sys._getframe(1).f_globals.get("__name__", "")
            return real() - 300 * caller.startswith("dalle2_train")

        time.time = late
    """)
    )
    return place
