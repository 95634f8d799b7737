"""What is wrong with data: one word for every kind, wherever it is found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """`kind` says what is wrong with the sample `key`, or with the whole `shard` where there is no key.

    Of a shard: missing, truncated, broken_header, digest, count, unlisted, stats. Of a sample: missing, unlisted,
    damaged, truncated, duplicate, no_image, no_caption, no_record, no_embedding, broken_image, broken_caption,
    broken_record, broken_embedding, image_digest.
    """

    shard: str
    key: str | None
    kind: str
    reason: str = ""
    """In words, where the kind does not say it all."""


class DamagedError(ValueError):
    """A sample that cannot be used; `kind` as in `Fault`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@contextmanager
def damage_is(kind: str) -> Iterator[None]:
    """A ValueError of the block means that the sample has a fault of this `kind`, unless it names its own."""
    try:
        yield
    except DamagedError:
        raise
    except ValueError as error:
        raise DamagedError(kind, str(error)) from error
