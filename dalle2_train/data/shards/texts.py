"""What the texts of a sample say, and what is wrong with a sample before its picture or vectors are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from dalle2_train.data.pictures.formats import IMAGE_EXTENSIONS
from dalle2_train.data.shards.tarscan import Sample
from dalle2_train.data.values import decode_record, decode_text


class Texts(NamedTuple):
    """The caption and the json record of a sample; None where there is none that can be read."""

    caption: str | None
    record: dict[str, Any] | None
    faults: tuple[str, ...]
    """Of SAMPLE_KINDS, the gravest first."""


def read_texts(stream: IO[bytes], sample: Sample) -> Texts:
    """Reads the texts of `sample` from its tar."""
    caption, record, faults = None, None, []
    if (data := sample.read(stream, "txt")) is not None:
        try:
            caption = decode_text(data)
        except ValueError:
            faults.append("broken_caption")
    if (data := sample.read(stream, "json")) is not None:
        try:
            record = decode_record(data)
        except ValueError:
            faults.append("broken_record")
    return Texts(caption, record, (*_of_headers(sample), *faults))


def _of_headers(sample: Sample) -> Iterator[str]:
    """What the members' headers alone show."""
    if sample.fault is not None:
        yield sample.fault
        return
    extensions = {member.extension for member in sample.members}
    if "txt" not in extensions:
        yield "no_caption"
    if not extensions.intersection(IMAGE_EXTENSIONS) and not any(name.endswith("npy") for name in extensions):
        yield "no_image"
