"""Embeds a shard set part by part: resumable, in this process or spread by the map that it is handed.

Which CLIP embeds is the caller's: this room is handed `encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from dalle2_train import storage
from dalle2_train.data.embed.encoding import EmbedConfig, Encode, encoded
from dalle2_train.data.embed.in_tars import members_of, unpacked
from dalle2_train.data.embed.parts import EmbedTask, PartDone, faults_name, make_part
from dalle2_train.data.embeddings import layout
from dalle2_train.data.embeddings.columns import DTYPES, FP16, FP32
from dalle2_train.data.embeddings.layout import EmbeddingManifest, Part, part_name
from dalle2_train.data.embeddings.moments import NOTHING
from dalle2_train.data.embeddings.statistics import publish_statistics
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.shards import locate
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.manifest import ShardManifest, ShardSet
from dalle2_train.errors import InputError, RefusedError

MapParts = Callable[[Callable[[EmbedTask], PartDone], list[EmbedTask]], Iterable[PartDone]]
"""How the work on many shards is spread: (what to do, the tasks) → the results in the tasks' order."""


class _Allowed(NamedTuple):
    max_faulty: float
    """Share of the samples that may be broken."""
    remedy: str
    """What to do where it is more."""


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
    A folder that holds something else: InputError. More than the share `max_faulty` of the samples broken:
    RefusedError.
    """
    shards, home = open_set(source), storage.absolute(to)
    _refuse_others(home, config.clip_fingerprint, shards.manifest, shards.home)
    work = partial(make_part, rows=partial(encoded, encode=encode))
    told = progress or on_stderr("embed", "shards")
    allowed = _Allowed(max_faulty, "repair the shards, or allow more with --max-faulty")
    return _make(shards, home, config, clip_uri, allowed, partial(map_parts, work), told)


def unpack_shards(
    uri: str, clip_uri: str, clip_fingerprint: str, embed_dim: int, progress: Progress | None = None
) -> EmbeddingManifest:
    """Writes the embeddings that lie in the tars of the set `uri` as columns beside its manifest; resumable.

    clip_…: the CLIP that made them, as the user says; its embeddings have `embed_dim` numbers. Tars without them, or
    with others than such a CLIP's: InputError. More than a tenth of the samples broken: RefusedError.
    """
    shards = open_set(uri)
    like = members_of(shards)
    vector = like[layout.IMAGE_EMBED]
    if vector.shape != (embed_dim,) or vector.dtype.kind != "f":
        raise InputError(f"{uri}: its embeddings are {vector.shape} of {vector.dtype}, the CLIP's ({embed_dim},); "
                         "give the --clip that made them")  # fmt: skip
    dtype = FP16 if vector.dtype == DTYPES[FP16] else FP32
    config = EmbedConfig(clip_fingerprint, 0, dtype, layout.TEXT_ENCODINGS in like)
    _refuse_others(shards.home, clip_fingerprint, shards.manifest, shards.home)
    work = partial(make_part, rows=partial(unpacked, like=like))
    told = progress or on_stderr("index", "shards")
    allowed = _Allowed(0.1, "repair the shards")
    return _make(shards, shards.home, config, clip_uri, allowed, partial(map, work), told)


def _make(
    shards: ShardSet,
    home: str,
    config: EmbedConfig,
    clip_uri: str,
    allowed: _Allowed,
    map_work: Callable[[list[EmbedTask]], Iterable[PartDone]],
    progress: Progress,
) -> EmbeddingManifest:
    storage.check_writable(home)
    storage.sweep(home)
    tasks = [EmbedTask(shards.home, shard, home, config) for shard in shards.manifest.shards]
    parts: list[Part] = []
    total = NOTHING
    for part, moments in map_work(tasks):
        parts.append(part)
        total = total.merged(moments)
        _refuse_too_many_faults(home, parts, shards.manifest, allowed)
        progress(len(parts), len(tasks))
    # A worker that was killed in the midst left what it was writing; another has made its part since.
    storage.sweep(home)
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


def _refuse_too_many_faults(to: str, parts: list[Part], source: ShardManifest, allowed: _Allowed) -> None:
    faulty, expected = sum(part.num_faulty for part in parts), source.num_samples
    if faulty > allowed.max_faulty * expected:
        worst = max(parts, key=lambda part: part.num_faulty)
        raise RefusedError(f"{to}: {faulty} of {expected} samples cannot be embedded, more than the "
                           f"{allowed.max_faulty:.0%} allowed; most are of {worst.name}, see "
                           f"{faults_name(worst.name)} there; {allowed.remedy}")  # fmt: skip
