"""What runs in a storage, how far and how well; and the request to stop one."""

from dataclasses import dataclass
from typing import Any, Literal

from dalle2_train import storage
from dalle2_train.checkpoints.holder import read_holder
from dalle2_train.checkpoints.layout import (
    committed_steps,
    goodput_uri,
    lease_uri,
    model_uri,
    progress_uri,
    stop_uri,
)
from dalle2_train.checkpoints.manifest import has_manifest
from dalle2_train.errors import InputError

Status = Literal["starting", "running", "finished", "preempted", "refused", "failed"]


@dataclass(frozen=True)
class RunStatus:
    """A run as it last described itself; a killed one still says running, but `updated` grows old."""

    name: str
    status: Status
    step: int
    num_steps: int
    loss: float | None
    seconds_left: float | None
    updated: float
    """Seconds since 1970."""
    is_trained: bool
    """Does a process hold its lease? It may be between two attempts, and say preempted or failed."""
    is_dead: bool
    """Has the process that holds its lease ended, as far as this machine knows?"""
    beat: int
    """Rises while a process holds its lease."""
    checkpoint: int | None
    """Step of the newest committed checkpoint."""
    model: str | None
    """Folder of the released weights, once there are any."""
    time: dict[str, float] | None
    """Where its wall time went, in seconds, and `goodput`, the share in steps that are in its history."""


def list_runs(storage_uri: str, name: str | None = None) -> list[RunStatus]:
    """Every run under `storage_uri`, by name, or the one of that name. Raises InputError where that one is not."""
    if name is not None:
        return [_status(storage_uri, name)]
    root = storage.absolute(storage_uri)
    if not storage.exists(root):
        raise InputError(f"{storage_uri}: there is no such folder; give the --storage of a training")
    found = [uri[len(root) :].strip("/").split("/") for uri in storage.list_files(root, "progress.json")]
    return [_status(storage_uri, parts[0]) for parts in found if len(parts) == 2]


def request_stop(storage_uri: str, name: str) -> None:
    """Ask a running training to write a checkpoint after its step and stop. Raises InputError where there is none."""
    status = _status(storage_uri, name)
    if not status.is_trained:
        raise InputError(f"{name} is {status.status}, not running; there is nothing to stop")
    storage.publish_bytes(stop_uri(storage.join(storage_uri, name)), b"")


def _status(storage_uri: str, name: str) -> RunStatus:
    run_uri = storage.join(storage_uri, name)
    if not storage.exists(progress_uri(run_uri)):
        raise InputError(
            f"{run_uri}: no run here; `dalle2-train runs --storage {storage_uri}` lists those there are"
        )
    said: dict[str, Any] = storage.read_json(progress_uri(run_uri))
    steps, holder = committed_steps(run_uri), read_holder(lease_uri(run_uri))
    is_dead = holder is not None and holder.is_dead
    return RunStatus(
        name=name,
        status=said["status"],
        step=said["step"],
        num_steps=said["num_steps"],
        loss=said["loss"],
        seconds_left=said["seconds_left"],
        updated=said["updated"],
        is_trained=not is_dead and (said["status"] == "running" or holder is not None),
        is_dead=is_dead,
        beat=0 if holder is None else holder.beat,
        checkpoint=steps[-1] if steps else None,
        model=model_uri(run_uri) if has_manifest(model_uri(run_uri)) else None,
        time=_time(run_uri),
    )


def _time(run_uri: str) -> dict[str, float] | None:
    uri = goodput_uri(run_uri)
    if not storage.exists(uri):
        return None
    return {name: value for name, value in storage.read_json(uri).items() if isinstance(value, int | float)}
