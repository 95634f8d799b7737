"""What is wrong with data: one word for every kind, wherever it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

SHARD_KINDS = {
    "missing": "the manifest lists the shard, and it is not there",
    "unlisted": "the shard lies in the folder, and the manifest does not list it",
    "empty": "a file of no bytes, or a tar without any member",
    "not_a_tar": "the file is something else: a web page, an archive of another format, noise",
    "truncated": "the tar ends before its end is marked",
    "broken_header": "a member's header is damaged, or zeroed; what follows it cannot be found",
    "digest": "the file's bytes are not those that the manifest was made of",
    "count": "the shard holds more or fewer samples than its stats or its parquet promise",
    "stats": "the shard's stats cannot be read",
    "table": "the shard's parquet cannot be read",
}
"""Kind → what is wrong with the shard."""

SAMPLE_KINDS = {
    "missing": "the manifest or the shard's parquet lists the sample, and it is not there",
    "unlisted": "the shard holds the sample, and the manifest does not list it",
    "truncated": "the shard ends within the sample",
    "damaged": "the sample's bytes are not those that the manifest was made of",
    "duplicate": "a sample with this key came before, or one of its members comes twice",
    "bad_name": "the name of a member is absolute, leads upwards (..), is no UTF-8 or is too long",
    "special_member": "a member is no plain file but a link, a device or the like",
    "pickle": "a member is a pickle, which runs what its maker likes when it is read",
    "too_large": "a member, or the whole sample, is larger than what is read",
    "no_image": "it has no picture",
    "no_caption": "it has no caption",
    "no_embedding": "an embedding of it is not there",
    "wrong_extension": "its picture is of another format than its name says",
    "broken_image": "its picture cannot be decoded, or is too large to be",
    "broken_caption": "its caption is empty or no UTF-8",
    "broken_record": "its json is no JSON object",
    "broken_embedding": "an embedding is no array of finite numbers, or of another sample",
    "image_digest": "its picture is not the one whose digest its json names",
}
"""Kind → what is wrong with the sample."""


@dataclass(frozen=True)
class Fault:
    """`kind` says what is wrong with the sample `key`, or with the whole `shard` where there is no key."""

    shard: str
    """As the manifest has it: the file's name in the set's folder, or its whole URI where it lies elsewhere."""
    key: str | None
    kind: str
    reason: str = field(default="", compare=False)
    """In words, where the kind does not say it all."""
    num_lost: int = field(default=0, compare=False)
    """Samples that are lost with the shard, where that is known."""

    @property
    def num_samples(self) -> int:
        """Samples that are lost to it."""
        return self.num_lost if self.key is None else 1

    def __post_init__(self) -> None:
        assert self.kind in (SHARD_KINDS if self.key is None else SAMPLE_KINDS), self.kind


OnFault = Callable[[Fault], None]
"""Who is told of a fault that is met."""


class DamagedError(ValueError):
    """A sample that cannot be used; `kind` is one of SAMPLE_KINDS."""

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
