"""Embeds a shard set part by part: resumable, in this process or spread by the map that it is handed.

Which CLIP embeds is the caller's: this room is handed `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from dalle2_train import storage
from dalle2_train.data import locate
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.encoding import EmbedConfig, Encode
from dalle2_train.data.embeddings.layout import EmbeddingManifest, Part, part_name
from dalle2_train.data.embeddings.moments import NOTHING
from dalle2_train.data.embeddings.parts import (
    EmbedTask,
    PartDone,
    embed_one,
    faults_name,
)
from dalle2_train.data.embeddings.statistics import publish_statistics
from dalle2_train.data.index import open_set
from dalle2_train.data.manifest import ShardManifest
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.errors import InputError, RefusedError

MapParts = Callable[[Callable[[EmbedTask], PartDone], list[EmbedTask]], Iterable[PartDone]]
"""How the work on many shards is spread: (what to do, the tasks) → the results in the tasks' order."""


def embed_shards(
    source: str,
    to: str,
    encode: Encode,
    config: EmbedConfig,
    *,
    clip_uri: str,
    max_faulty: float = 0.1,
    map_parts: MapParts = map,
    progress: Progress | None = None,
) -> EmbeddingManifest:
    """Embeds the set `source` into the folder `to`, which may be its own; run again, it goes on where it was.

    A sample that cannot be embedded is left out and named in faults/. `to` is one run's at a time.
    progress: hears of the shards done; by default stderr does.
    A folder that holds something else: InputError. More than the share `max_faulty` of
    the samples broken: RefusedError.
    """
    shards, home = open_set(source), storage.absolute(to)
    _refuse_others(home, config.clip_fingerprint, shards.manifest, shards.home)
    storage.check_writable(home)
    storage.sweep(home)
    tasks = [EmbedTask(shards.home, shard, home, config) for shard in shards.manifest.shards]
    progress = progress or on_stderr("embed", "shards")
    parts: list[Part] = []
    total = NOTHING
    for part, moments in map_parts(partial(embed_one, encode=encode), tasks):
        parts.append(part)
        total = total.merged(moments)
        _refuse_too_many_faults(home, parts, shards.manifest, max_faulty)
        progress(len(parts), len(tasks))
    info = publish_statistics(home, total, clip_uri, config.clip_fingerprint, config.dtype)
    manifest = EmbeddingManifest(tuple(parts), info, shards.manifest.digest)
    layout.publish(manifest, home)
    return manifest


def _refuse_others(to: str, clip_fingerprint: str, source: ShardManifest, home: str) -> None:
    if to != home and locate.shard_uris(to):
        raise InputError(f"{to}: holds shards, but not those to be embedded; give an empty folder")
    if not layout.has_embeddings(to):
        return
    found = layout.load(to)
    if found.info.clip_fingerprint != clip_fingerprint:
        raise InputError(
            f"{to}: holds embeddings of the CLIP {found.info.clip_fingerprint}, not of {clip_fingerprint}; "
            "give an empty folder"
        )
    # A set that grew or was repaired is embedded anew in its place; one with no shard in common is another set.
    ours = {(part_name(shard.path), shard.sha256) for shard in source.shards}
    if not ours & {(part.name, part.source) for part in found.parts}:
        raise InputError(f"{to}: holds embeddings of other shards; give an empty folder")


def _refuse_too_many_faults(to: str, parts: list[Part], source: ShardManifest, max_faulty: float) -> None:
    faulty, expected = sum(part.num_faulty for part in parts), source.num_samples
    if faulty > max_faulty * expected:
        worst = max(parts, key=lambda part: part.num_faulty)
        raise RefusedError(f"{to}: {faulty} of {expected} samples cannot be embedded, more than the {max_faulty:.0%} "
                           f"allowed; most are of {worst.name}, see {faults_name(worst.name)} there. Repair the "
                           "shards, or allow more with --max-faulty")  # fmt: skip
