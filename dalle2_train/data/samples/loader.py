"""Reads and decodes samples of one set: a pure function of the set, their places and their keys.

It runs in this process or in workers, which import this module: nothing here may import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.embeddings.source import EmbeddingSource
from dalle2_train.data.faults import DamagedError, Fault
from dalle2_train.data.samples.decode_sample import Decode
from dalle2_train.data.shards.reader import RawSample, Reader
from dalle2_train.data.shards.shard_index import Place


class Wanted(NamedTuple):
    """A sample to be decoded, and the key of what is drawn in doing so."""

    place: Place
    key: int


@dataclass(frozen=True)
class Loader:
    """`pictures` None: the vectors alone are read; `vectors` None: no vectors. Their places are the same."""

    decode: Decode
    pictures: Reader | None
    vectors: EmbeddingSource | None = None

    def __call__(self, wanted: Sequence[Wanted]) -> list[Decoded | Fault]:
        """The samples, in that order; of a damaged one its fault. Unreachable storage: OSError."""
        raw = self.read([place for place, _ in wanted])
        return [self.decoded(item, sample) for item, sample in zip(wanted, raw, strict=True)]

    def read(self, places: list[Place]) -> list[RawSample]:
        """The raw samples at `places`, in that order."""
        if self.pictures is None or self.vectors is None:
            reader = self.pictures or self.vectors
            assert reader is not None
            return reader.read(places)
        pairs = zip(self.pictures.read(places), self.vectors.read(places), strict=True)
        return [_joined(sample, vectors) for sample, vectors in pairs]

    def decoded(self, wanted: Wanted, raw: RawSample) -> Decoded | Fault:
        """One sample out of what was read."""
        try:
            return self.decode(raw, wanted.key)
        except DamagedError as error:
            return Fault(self._shard(wanted, raw), raw["__key__"], error.kind, str(error))

    def _shard(self, wanted: Wanted, raw: RawSample) -> str:
        if self.pictures is not None:
            return self.pictures.shards.name(wanted.place.shard)
        # Vectors lie in parts of their own, whose files have one name each.
        return raw["__url__"].rsplit("/", 1)[-1]


def _joined(sample: RawSample, vectors: RawSample) -> RawSample:
    """Picture and vectors of one key; damage in either is damage of both."""
    joined = {**vectors, **sample}
    if sample["__key__"] != vectors["__key__"]:
        joined["__error__"] = f"its embedding has the key {vectors['__key__']}"
    return joined
