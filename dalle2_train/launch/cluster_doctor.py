"""Are all machines of a Ray cluster fit to train together? Each is asked by a task of its own."""

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dalle2_train import storage
from dalle2_train.doctor import FORBIDDEN, REPORTED, Check
from dalle2_train.launch.ray_connection import connect
from dalle2_train.redaction import redact

_PATIENCE_SECONDS = 180.0
"""Of all nodes together, which are asked at once: each has the imports of a training to do."""
_LARGEST_SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class NodeFacts:
    """What a machine says of itself."""

    versions: dict[str, str | None]
    """Of Python and of every package that counts, this one among them; None: not installed."""
    forbidden: dict[str, str]
    """Packages that must not be there, with their versions."""
    storage_fault: str | None
    num_gpus: int = 0
    """That torch sees; asked where Ray has some."""


def examine_cluster(storage_uri: str | None) -> list[Check]:
    """A check for each node of the cluster at RAY_ADDRESS, or of the one that this process is connected to."""
    connect(0)
    storage_uri = None if storage_uri is None else storage.absolute(storage_uri)
    ours = _facts(None, has_gpus=False)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    asked = [
        (node, _on(node, _facts).remote(storage_uri, has_gpus=_gpus_of(node) > 0))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return [_check(node, answer, ours, deadline) for node, answer in asked]


def _on(node: dict[str, Any], work: Callable[..., Any]) -> Any:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(work).options(scheduling_strategy=there, num_cpus=0, max_retries=0)


def _gpus_of(node: dict[str, Any]) -> float:
    return node["Resources"].get("GPU", 0.0)


def _facts(storage_uri: str | None, has_gpus: bool) -> NodeFacts:
    fault = None
    if storage_uri is not None:
        try:
            storage.check_writable(storage_uri)
        except Exception as error:
            fault = redact(str(error))
    versions = {name: _version(name) for name in (*REPORTED, "dalle2-train")}
    versions["python"] = sys.version.split()[0]
    forbidden = {name: version for name in FORBIDDEN if (version := _version(name)) is not None}
    num_gpus = _count_gpus() if has_gpus else 0
    return NodeFacts(versions, forbidden, fault, num_gpus)


def _clock() -> float:
    """Seconds since 1970."""
    return time.time()


def _count_gpus() -> int:
    """In a process of its own: Ray hides them from one that has reserved none."""
    environment = {name: value for name, value in os.environ.items() if "VISIBLE_DEVICES" not in name}
    count = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    done = subprocess.run(count, env=environment, capture_output=True, check=False, text=True, timeout=120)
    return int(done.stdout) if done.returncode == 0 else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check(node: dict[str, Any], answer: Any, ours: NodeFacts, deadline: float) -> Check:
    name = f"node {node['NodeManagerAddress']}"
    try:
        theirs: Any = ray.get(answer, timeout=max(1.0, deadline - time.monotonic()))
        skew = _skew_of(node)
    except ray.exceptions.GetTimeoutError:
        return Check(name, False, f"no answer in {_PATIENCE_SECONDS:.0f} s; is it overloaded, or cut off?")
    except Exception as error:
        return Check(name, False, _told(error))
    faults = _faults(theirs, ours)
    if theirs.num_gpus < (promised := _gpus_of(node)):
        faults.append(f"Ray promises {promised:g} GPUs there, and torch sees {theirs.num_gpus}; look for the driver "
                      "(nvidia-smi), and whether the container is given them (docker's --gpus all)")  # fmt: skip
    if skew > _LARGEST_SKEW_SECONDS:
        faults.append(f"its clock is {skew:.0f} s or more off; synchronise it (chrony, ntpd)")
    return Check(name, not faults, "; ".join(faults) if faults else "as this machine")


def _told(error: Exception) -> str:
    if "No module named 'dalle2_train'" in str(error):
        return "dalle2_train is not installed there; install it, or give it by --working-dir or a container"
    return redact(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}")


def _skew_of(node: dict[str, Any]) -> float:
    """Seconds that its clock is off at least: it is read between two readings of ours. A node that has answered before
    has no import to do any more, which would keep them apart."""
    skews = [0.0]
    for _ in range(2):  # Ray may have ended the process that had imported all
        began = time.time()
        theirs: Any = ray.get(_on(node, _clock).remote(), timeout=_PATIENCE_SECONDS)
        skews += [began - theirs, theirs - time.time()]
    return max(skews)


def _faults(theirs: NodeFacts, ours: NodeFacts) -> list[str]:
    faults = [
        f"{name} is {theirs.versions.get(name) or 'absent'} there, {version or 'absent'} here; make them equal"
        for name, version in ours.versions.items()
        if theirs.versions.get(name) != version
    ]
    faults += [
        f"{name} {version}: pip uninstall it ({FORBIDDEN[name]})"
        for name, version in theirs.forbidden.items()
    ]
    if theirs.storage_fault is not None:
        faults.append(f"the storage cannot be written from there: {theirs.storage_fault}")
    return faults
