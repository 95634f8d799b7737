"""A cheap look whether a set's shards are still those that its manifest describes."""

from __future__ import annotations

from dalle2_train import storage
from dalle2_train.data.shards import locate
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.manifest import Shard, ShardSet, shards_of
from dalle2_train.errors import InputError
from dalle2_train.storage import Stat

_SHOWN = 3


def check_fresh(uri: str) -> None:
    """Compares a listing with the manifest of the set `uri`, by size and version, reading no shard.

    A shard that has changed, is missing or is new: InputError. Of local files only the size is compared; the
    digests of their samples guard the rest.
    """
    shards = open_set(uri)
    found = tars_of(uri, shards)
    odd = [f"{shards.uri(i)} {why}" for i, shard in enumerate(shards.manifest.shards)
           if (why := _difference(shard, found.pop(shards.uri(i), None)))]  # fmt: skip
    odd += [f"{tar} is new" for tar in found]
    if odd:
        more = f" and {len(odd) - _SHOWN} more" if len(odd) > _SHOWN else ""
        raise InputError(f"{'; '.join(odd[:_SHOWN])}{more}: the manifest in {shards.home} tells otherwise; "
                         f"run `dalle2-train shards index {uri}`, or restore the shards")  # fmt: skip


def tars_of(uri: str, shards: ShardSet) -> dict[str, Stat | None]:
    """The tars that belong to the set now, as the storage tells of them; a web server is asked for those known."""
    asked = shards_of(uri)
    if storage.can_list(asked) or not locate.is_folder(asked):
        return locate.listing(asked)
    return storage.stats([shards.uri(number) for number in range(len(shards))])


def _difference(shard: Shard, found: Stat | None) -> str | None:
    if found is None:
        return None if shard.problem == "missing" else "is missing"
    if found.size != shard.size:
        return f"has {found.size} bytes, not {shard.size}"
    if None not in (found.version, shard.version) and found.version != shard.version:
        return "is another version"
    return None
