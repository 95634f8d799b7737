"""A name belongs to one run: going on with another model, or on other data, would be neither."""

from collections.abc import Mapping
from typing import Any

from dalle2_train.checkpoints.manifest import ModelManifest
from dalle2_train.errors import InputError, with_article


def check_same_run(run_uri: str, found: ModelManifest, wanted: ModelManifest) -> None:
    """Raises InputError where the checkpoint `found` is of another model, data, CLIP or beginning than `wanted`."""
    for what in ("kind", "config"):
        if _differ(getattr(found, what), getattr(wanted, what)):
            raise InputError(f"{run_uri} already holds {with_article(found.kind)} with another {what}; give another "
                             "--name, or the recipe that it was started with")  # fmt: skip
    if found.data and wanted.data and found.data.digest != wanted.data.digest:
        raise InputError(f"{run_uri} was trained on other shards ({found.data.uri}); give another --name, and "
                         "--init-from to start from its weights")  # fmt: skip
    if wanted.init_from is not None and found.init_from != wanted.init_from:
        raise InputError(f"{run_uri} began with other weights than --init-from's; give another --name, or leave "
                         "--init-from out to go on")  # fmt: skip
    if found.clip and wanted.clip and found.clip.fingerprint != wanted.clip.fingerprint:
        raise InputError(f"{run_uri} was trained with another CLIP ({found.clip.uri}, {found.clip.fingerprint}); "
                         "give another --name, or that CLIP")  # fmt: skip


def _differ(found: Any, wanted: Any) -> bool:
    """Of mappings only the keys of both count: any other came or went with a version of this program, and whoever makes
    the recipe knows its default."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        return any(_differ(found[key], wanted[key]) for key in found.keys() & wanted.keys())
    return found != wanted
