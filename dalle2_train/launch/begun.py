"""Whether a run that was begun is the one that is asked for."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps
from dalle2_train.checkpoints.manifest import ModelManifest, read_manifest
from dalle2_train.config import to_dict
from dalle2_train.data.stream.summary import summarize
from dalle2_train.errors import InputError
from dalle2_train.launch.initial import initial_digest
from dalle2_train.launch.job import TrainJob
from dalle2_train.recipe import build_recipe

_UNDECISIVE = {
    "sampling",
    "parallel",
    "workers",
    "clip",
    "embeddings",
    "data.cache_megabytes",
    "data.max_faulty",
    "data.cache_folder",
    "data.cache_gigabytes",
    "data.num_workers",
    "data.prefetch_batches",
    *(
        f"training.{name}"
        for name in ("num_steps", "checkpoint_every_steps", "keep_checkpoints", "log_every_steps",
                     "keep_best_checkpoints", "sample_every_steps", "max_nonfinite_steps", "max_rewinds",
                     "rewind_steps", "step_deadline_seconds", "first_step_deadline_seconds", "max_failures",
                     "num_threads", "micro_batch_size", "channels_last", "compile")
    ),
}  # fmt: skip
"""Keys of a recipe that say how and how far a run goes, not what it learns."""


def check_begun(job: TrainJob, found: ModelManifest) -> None:
    """Raises InputError where the run's model or checkpoint `found` learned otherwise than `job` asks."""
    others = _other_settings(job, found)
    if (
        found.data is not None
        and storage.exists(job.data)
        and summarize(job.data).digest != found.data.digest
    ):
        others.append(f"the shards {found.data.uri}, or what they held then")
    if job.init_from is not None and initial_digest(job.init_from, job.recipe.family) != found.init_from:
        others.append("other weights to begin with (without --init-from it goes on)")
    if others:
        told = "; ".join(others[:3]) + (f"; and {len(others) - 3} more" if len(others) > 3 else "")
        raise InputError(f"{job.run_uri} at step {found.step} has learned with {told}; give another --name (in a "
                         "pipeline another --folder), or what it began with")  # fmt: skip


def _other_settings(job: TrainJob, found: ModelManifest) -> list[str]:
    # Built anew, an older recipe has the settings that came since.
    asked, done = _decisive(to_dict(job.recipe)), _decisive(to_dict(build_recipe(found.recipe)))
    return [
        f"{key} {done.get(key)!r}, not {asked.get(key)!r}"
        for key in asked | done
        if asked.get(key) != done.get(key)
    ]


def newest_checkpoint(job: TrainJob) -> ModelManifest | None:
    """None also where it cannot be read: going on looks for an older one, and says so."""
    for step in reversed(committed_steps(job.run_uri)):
        with suppress(InputError):
            return read_manifest(checkpoint_uri(job.run_uri, step))
    return None


def _decisive(recipe: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key → value of all in a recipe that decides what is learned."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{path}{key}"
        if name in _UNDECISIVE:
            continue
        found |= _decisive(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
