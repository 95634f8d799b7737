"""Writes the embeddings of a shard set beside it: shards of the same names and keys, with vectors for pictures.

Which CLIP embeds is the caller's: this room is handed `encode`. B batch, L text length, E embedding, S side.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from webdataset.writer import TarWriter

from dalle2_train import storage
from dalle2_train.data import manifest as manifests
from dalle2_train.data.decode import decode_array, decode_image
from dalle2_train.data.embedded import COVARIANCE, IMAGE_EMBED, TEXT_EMBED, TEXT_ENCODINGS, TEXT_MASK
from dalle2_train.data.index import open_set, publish_index, read_shard
from dalle2_train.data.manifest import EmbeddingInfo, Shard, ShardManifest, ShardSet
from dalle2_train.data.moments import NOTHING, Moments, moments_of
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.data.reader import RawSample, Reader
from dalle2_train.data.samples import caption, image_bytes
from dalle2_train.data.selection import Place
from dalle2_train.data.shard_index import ShardIndex
from dalle2_train.errors import InputError

_READ_TOGETHER = 256


class Embedded(NamedTuple):
    """What `encode` returns for B samples; the last two are None when text encodings are not wanted."""

    image_embed: Tensor  # (B, E)
    text_embed: Tensor  # (B, E)
    text_encodings: Tensor | None = None  # (B, L, E)
    text_mask: Tensor | None = None  # (B, L) bool


Encode = Callable[[Tensor, list[str]], Embedded]
"""(uint8 (B, 3, S, S), B captions) → Embedded."""


def embed_shards(
    source: str,
    to: str,
    encode: Encode,
    *,
    clip_uri: str,
    clip_fingerprint: str,
    image_size: int,
    text_encodings: bool = True,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ShardManifest:
    """Embeds the set `source` into the folder `to`, one shard after another; run again, it goes on where it was.

    progress: hears of the shards done; by default stderr does.
    A damaged sample, or a folder that holds something else: InputError.
    """
    progress = progress or on_stderr("embed", "shards")
    whole = open_set(source)
    manifest = whole.manifest
    if storage.absolute(source) == storage.absolute(to):
        raise InputError(f"{to}: embeddings go to a folder of their own; give another one than the shards'")
    _refuse_others(to, clip_fingerprint, manifest)
    storage.check_writable(to)
    told = {"clip_fingerprint": clip_fingerprint, "text_encodings": text_encodings, "image_size": image_size}
    shards: list[Shard] = []
    total = NOTHING
    for number, shard in enumerate(manifest.shards):
        key = {**told, "source": shard.sha256}
        part = _done(to, shard, key)
        if part is None:
            # A manifest over shards that are being replaced would call a half-made set whole.
            storage.remove(storage.join(to, manifests.MANIFEST))
            encoded = _encode_shard(whole, number, encode, image_size, batch_size)
            part = _publish(to, shard, whole.index(number).splits, key, encoded, text_encodings)
        shards.append(part[0])
        total = total.merged(part[1])
        progress(number + 1, len(manifest.shards))
    return _finish(to, manifest, shards, total, clip_uri, clip_fingerprint, text_encodings)


def _refuse_others(to: str, clip_fingerprint: str, source: ShardManifest) -> None:
    if not manifests.has_manifest(to):
        if any(not storage.exists(_record_uri(to, Path(tar).name)) for tar in storage.list_files(to, ".tar")):
            raise InputError(f"{to}: holds shards that are no embeddings; give an empty folder")
        return
    info = manifests.load(to).embeddings
    if info is None or info.clip_fingerprint != clip_fingerprint:
        made = f"embeddings of the CLIP {info.clip_fingerprint}" if info else "shards without embeddings"
        raise InputError(f"{to}: holds {made}, not of {clip_fingerprint}; give an empty folder")
    # A set that grew or was repaired is embedded anew in its place; one with no shard in common is another set.
    if not {shard.sha256 for shard in source.shards} & set(info.source.values()):
        raise InputError(f"{to}: holds embeddings of other shards; give an empty folder")


class _Row(NamedTuple):
    """A sample with its vectors, as its members will be."""

    raw: RawSample
    members: dict[str, NDArray[Any]]


def _encode_shard(
    shards: ShardSet, number: int, encode: Encode, image_size: int, batch_size: int
) -> Iterator[_Row]:
    reader, shard = Reader(shards), shards.manifest.shards[number]
    for start in range(0, shard.num_samples, batch_size):
        stop = min(start + batch_size, shard.num_samples)
        raws = reader.read([Place(number, position) for position in range(start, stop)])
        images, captions = zip(*(_decoded(raw, image_size) for raw in raws), strict=True)
        embedded = encode(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), list(captions))
        columns = _columns(embedded, len(raws))
        for i, raw in enumerate(raws):
            yield _Row(raw, {name: column[i] for name, column in columns.items()})


def _decoded(raw: RawSample, image_size: int) -> tuple[NDArray[np.uint8], str]:
    try:
        return decode_image(image_bytes(raw), image_size), caption(raw)
    except ValueError as error:
        where = f"{raw['__url__']}: sample {raw['__key__']}"
        raise InputError(f"{where}: {error}; run `shards check` and repair the set") from error


def _columns(embedded: Embedded, count: int) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {
        IMAGE_EMBED: embedded.image_embed.float().cpu().numpy(),
        TEXT_EMBED: embedded.text_embed.float().cpu().numpy(),
    }
    if embedded.text_encodings is not None and embedded.text_mask is not None:
        # Half precision halves the set; the encodings come out of a layer norm, far below its largest number.
        columns[TEXT_ENCODINGS] = embedded.text_encodings.to(torch.float16).cpu().numpy()
        columns[TEXT_MASK] = embedded.text_mask.bool().cpu().numpy()
    for name, column in columns.items():
        assert len(column) == count, f"encode gave {len(column)} rows of {name} for {count} samples"
        if not np.isfinite(column).all():
            raise InputError(f"the CLIP gave {name} that are not finite; use another CLIP")
    return columns


def _publish(
    to: str, shard: Shard, splits: list[str], key: dict[str, Any], rows: Iterator[_Row], text_encodings: bool
) -> tuple[Shard, Moments]:
    """Writes one embedded shard, then the record that says it is whole."""
    vectors = []
    with storage.local_staging(storage.local_path(to)) as folder:
        tar = folder / shard.name
        with tar.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
            for row, split in zip(rows, splits, strict=True):
                if split == "train":
                    vectors.append(row.members[IMAGE_EMBED])
                writer.write(_sample(row, text_encodings))
        written, index = read_shard(tar, shard.name)
        storage.publish_file(tar, storage.join(to, shard.name))
    publish_index(to, written, index)
    record = {**key, "sha256": written.sha256}
    storage.publish_json(_record_uri(to, shard.name), record)
    return written, moments_of(_stacked(vectors))


def _sample(row: _Row, text_encodings: bool) -> dict[str, Any]:
    names = [IMAGE_EMBED, TEXT_EMBED] + ([TEXT_ENCODINGS, TEXT_MASK] if text_encodings else [])
    kept = {name: row.raw[name] for name in ("txt", "json") if name in row.raw}
    return {"__key__": row.raw["__key__"], **{name: _npy(row.members[name]) for name in names}, **kept}


def _npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _done(to: str, shard: Shard, key: dict[str, Any]) -> tuple[Shard, Moments] | None:
    """The embedded shard when an earlier run finished it from the same source by the same CLIP."""
    place, record_uri = storage.join(to, shard.name), _record_uri(to, shard.name)
    if not (storage.exists(record_uri) and storage.exists(place)):
        return None
    record = storage.read_json(record_uri)
    if {name: record.get(name) for name in key} != key or storage.sha256_file(place) != record["sha256"]:
        return None
    with storage.as_local(place) as local:
        done, index = read_shard(local, shard.name)
    publish_index(to, done, index)
    reader = Reader(ShardSet(storage.absolute(to), ShardManifest((done,))))
    return done, moments_of(_stacked(_train_vectors(reader, index)))


def _train_vectors(reader: Reader, index: ShardIndex) -> list[NDArray[np.float32]]:
    """The image embeddings (E,) of the train split in a reader's only shard."""
    wanted = [Place(0, position) for position, split in enumerate(index.splits) if split == "train"]
    # A few at a time: text encodings lie beside them, a hundred kilobytes each.
    parts = (wanted[start : start + _READ_TOGETHER] for start in range(0, len(wanted), _READ_TOGETHER))
    return [decode_array(raw[IMAGE_EMBED]) for part in parts for raw in reader.read(part)]


def _stacked(vectors: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(N, E), (0, 0) of none."""
    return np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)


def _finish(
    to: str,
    manifest: ShardManifest,
    shards: list[Shard],
    total: Moments,
    clip_uri: str,
    clip_fingerprint: str,
    text_encodings: bool,
) -> ShardManifest:
    if not total.count:
        raise InputError(
            f"{to}: the set has no train split ({manifest.count()}), and so no statistics to train with"
        )
    covariance = total.covariance
    covariance_sha256 = storage.publish_bytes(storage.join(to, COVARIANCE), _npy(covariance))
    info = EmbeddingInfo(
        clip_uri=clip_uri,
        clip_fingerprint=clip_fingerprint,
        embed_dim=len(total.mean),
        mean=tuple(total.mean.tolist()),
        std=tuple(np.sqrt(np.diagonal(covariance)).tolist()),
        norm=total.norms / total.count,
        covariance_sha256=covariance_sha256,
        dtype="float32",
        text_encodings=text_encodings,
        source={shard.name: shard.sha256 for shard in manifest.shards},
    )
    source = {"kind": "embeddings", "of": manifest.digest}
    done = ShardManifest(tuple(shards), source, info)
    manifests.publish(done, to)
    return done


def _record_uri(to: str, shard_path: str) -> str:
    return storage.join(to, f"{Path(shard_path).stem}_embedding.json")
