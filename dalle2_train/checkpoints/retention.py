"""Which checkpoints stay: the newest, and those of the lowest loss."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, started_steps
from dalle2_train.checkpoints.manifest import MANIFEST_NAME, has_manifest, read_manifest
from dalle2_train.errors import InputError
from dalle2_train.redaction import redact


class Keep(NamedTuple):
    """How many checkpoints of a run stay."""

    newest: int = 2
    best: int = 0
    """Those of the lowest `ModelManifest.loss` beside the newest."""
    damaged: frozenset[int] = frozenset()
    """Steps of those that were passed over when the run went on: they take no place among the kept."""


def retire(run_uri: str, step: int, keep: Keep) -> None:
    """Remove old checkpoints, and unfinished ones; what cannot be removed is told. step: of the newest, which is
    whole."""
    with _in_nobodys_way(run_uri):
        steps = [
            old for old in committed_steps(run_uri) if old == step or (old < step and old not in keep.damaged)
        ]
        kept = {*steps[-keep.newest :], *_best(run_uri, steps, keep.best), step}
        for old in started_steps(run_uri):
            folder = checkpoint_uri(run_uri, old)
            if old not in kept and (old < step or not has_manifest(folder)):
                remove_checkpoint(folder)


def remove_checkpoint(folder: str) -> None:
    """The manifest first, so that none is ever half there; none there is no error."""
    storage.remove(storage.join(folder, MANIFEST_NAME))
    storage.remove(folder)


def finish_removals(run_uri: str) -> None:
    """Remove what a process that was killed left of checkpoints that it was removing. One that is newer than all that
    count may yet be in the making, and is its save's to remove."""
    with _in_nobodys_way(run_uri):
        newest = max(committed_steps(run_uri), default=0)
        for step in started_steps(run_uri):
            folder = checkpoint_uri(run_uri, step)
            if step < newest and not has_manifest(folder):
                remove_checkpoint(folder)


@contextmanager
def _in_nobodys_way(run_uri: str) -> Iterator[None]:
    """What cannot be removed now stops nothing: the next start and the next save try again."""
    try:
        yield
    except Exception as error:
        print(redact(f"old checkpoints in {run_uri} could not be removed: {error}"), file=sys.stderr)


def _best(run_uri: str, steps: list[int], count: int) -> list[int]:
    if count == 0:
        return []
    losses: dict[int, float] = {}
    for step in steps:
        with suppress(InputError):  # damaged: nothing to keep it for
            loss = read_manifest(checkpoint_uri(run_uri, step)).loss
            if loss is not None:
                losses[step] = loss
    return sorted(losses, key=lambda step: (losses[step], -step))[:count]
