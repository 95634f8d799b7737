"""What is wrong with the samples of one shard: their names, texts and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from dalle2_train.data.faults import DamagedError, Fault, damage_is
from dalle2_train.data.pictures.decode import verify_image
from dalle2_train.data.pictures.formats import IMAGE_EXTENSIONS
from dalle2_train.data.shards.members import image_bytes
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.data.shards.tarscan import Sample
from dalle2_train.data.shards.texts import read_texts


def sample_faults(
    shard: str, tar: Path, samples: tuple[Sample, ...], index: ShardIndex | None
) -> Iterator[Fault]:
    """Of the samples in the local file `tar`."""
    known = set(index.keys) if index else set()
    # A key may come twice: its place says which of the two it is.
    spans = set(zip(index.keys, index.offsets, index.lengths, index.crc32s, strict=True)) if index else set()
    with tar.open("rb") as stream:
        for sample in samples:
            span = (sample.key, sample.offset, sample.length, sample.crc32(stream))
            if sample.key in known and span not in spans:
                yield Fault(shard, sample.key, "damaged")
            for kind, reason in _kinds(stream, sample):
                yield Fault(shard, sample.key, kind, reason)


def _kinds(stream: IO[bytes], sample: Sample) -> Iterator[tuple[str, str]]:
    """(kind, reason) of what is wrong with one sample."""
    texts = read_texts(stream, sample)
    yield from ((kind, "") for kind in texts.faults)
    if sample.fault is None:
        yield from _image_kinds(stream, sample, texts.record)


def _image_kinds(
    stream: IO[bytes], sample: Sample, record: dict[str, Any] | None
) -> Iterator[tuple[str, str]]:
    raw = {
        extension: data
        for extension in IMAGE_EXTENSIONS
        if (data := sample.read(stream, extension)) is not None
    }
    if not raw:
        return
    image = next(iter(raw.values()))
    try:
        with damage_is("broken_image"):
            verify_image(image_bytes(raw))
    except DamagedError as error:
        yield error.kind, str(error)
    # img2dataset's digest is of the file before it was resized; ours says the key of whose bytes it is.
    told = record.get("sha256") if record is not None and "split" in record else None
    if told is not None and told != sha256(image).hexdigest():
        yield "image_digest", ""
