"""What is wrong with the samples of one shard: their names, texts and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from dalle2_train.data.decode import IMAGE_EXTENSIONS, verify_image
from dalle2_train.data.faults import Fault
from dalle2_train.data.shard_index import ShardIndex
from dalle2_train.data.tarscan import Sample
from dalle2_train.data.texts import read_texts


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
    found = (sample.read(stream, extension) for extension in IMAGE_EXTENSIONS)
    image = next((data for data in found if data is not None), None)
    if image is None:
        yield "no_image", ""
        return
    try:
        verify_image(image)
    except ValueError as error:
        yield "broken_image", str(error)
    # img2dataset's digest is of the file before it was resized; ours says the key of whose bytes it is.
    if record is not None and "split" in record and record.get("sha256") != sha256(image).hexdigest():
        yield "image_digest", ""
