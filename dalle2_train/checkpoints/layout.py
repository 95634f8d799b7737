"""Where a run keeps what: NAME/checkpoints/step-00001000/, NAME/model/, NAME/progress.json, NAME/losses.jsonl."""

import re

from dalle2_train import storage
from dalle2_train.checkpoints.manifest import MANIFEST_NAME

_STEP = re.compile(r"/checkpoints/step-(\d{8,})/")


def checkpoint_uri(run_uri: str, step: int) -> str:
    """The folder of the checkpoint after `step` updates."""
    return storage.join(run_uri, "checkpoints", f"step-{step:08d}")


def model_uri(run_uri: str) -> str:
    """The folder of the released weights."""
    return storage.join(run_uri, "model")


def progress_uri(run_uri: str) -> str:
    """How far the run is, as it last said."""
    return storage.join(run_uri, "progress.json")


def lease_uri(run_uri: str) -> str:
    """Who trains the run."""
    return storage.join(run_uri, "lease.json")


def attempt_uri(run_uri: str) -> str:
    """Which start of the run is the newest."""
    return storage.join(run_uri, "attempt.json")


def goodput_uri(run_uri: str) -> str:
    """Where the wall time of all attempts went."""
    return storage.join(run_uri, "goodput.json")


def left_out_uri(run_uri: str) -> str:
    """The steps whose batches a rewound run leaves out, and why."""
    return storage.join(run_uri, "data", "left_out.json")


def losses_uri(run_uri: str) -> str:
    """A line for each step of the history."""
    return storage.join(run_uri, "losses.jsonl")


def metrics_uri(run_uri: str) -> str:
    """What the tracking server is sent, or was."""
    return storage.join(run_uri, "metrics.jsonl")


def faults_uri(run_uri: str) -> str:
    """A line for each fault of the data that the run has met."""
    return storage.join(run_uri, "data", "faults.jsonl")


def ledger_uri(run_uri: str) -> str:
    """Where all samples of the data went before training."""
    return storage.join(run_uri, "data", "ledger.json")


def stop_uri(run_uri: str) -> str:
    """Its existence asks a running training to write a last checkpoint and stop."""
    return storage.join(run_uri, "stop")


def committed_steps(run_uri: str) -> list[int]:
    """Steps of the checkpoints that have a manifest, oldest first."""
    return sorted(step for step, files in _checkpoint_files(run_uri).items() if MANIFEST_NAME in files)


def started_steps(run_uri: str) -> list[int]:
    """Steps of all checkpoint folders, whole or not, oldest first."""
    return sorted(_checkpoint_files(run_uri))


def _checkpoint_files(run_uri: str) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for uri in storage.list_files(storage.join(run_uri, "checkpoints")):
        if match := _STEP.search(uri):
            found.setdefault(int(match[1]), set()).add(uri[match.end() :])
    return found
