"""The samples of a split by number: read, decoded, and kept while memory allows."""

from __future__ import annotations

import logging

from dalle2_train.data import embedded
from dalle2_train.data.batches import Decoded
from dalle2_train.data.decode import decode_image
from dalle2_train.data.filters import FilterConfig
from dalle2_train.data.manifest import ShardSet
from dalle2_train.data.reader import RawSample, Reader
from dalle2_train.data.samples import caption, image_bytes
from dalle2_train.data.selection import select

_log = logging.getLogger(__name__)


class SamplePool:
    """Numbers in [0, len) → decoded samples. `image_size` None: no pictures; `embeddings` None: no vectors."""

    def __init__(
        self,
        shards: ShardSet,
        *,
        split: str,
        filters: FilterConfig,
        image_size: int | None,
        embeddings: str | None,
        cache_bytes: int,
    ) -> None:
        self.selection = select(shards, split, filters)
        self.image_size = image_size
        self.reader = Reader(shards)
        self.embedded = embedded.joined_reader(shards, embeddings) if embeddings else None
        self._cache: dict[int, Decoded] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.selection)

    def fetch(self, ids: list[int]) -> dict[int, RawSample]:
        """The raw samples of those `ids` that are not decoded yet."""
        missing = [number for number in dict.fromkeys(ids) if number not in self._cache]
        if not missing:
            return {}
        wanted = [self.selection.place(number) for number in missing]
        if self.embedded is None:
            raw = self.reader.read(wanted)
        elif self.image_size is None:
            raw = self.embedded.read(wanted)
        else:
            pairs = zip(self.reader.read(wanted), self.embedded.read(wanted), strict=True)
            raw = [_joined(sample, vectors) for sample, vectors in pairs]
        return dict(zip(missing, raw, strict=True))

    def decoded(self, number: int, raw: dict[int, RawSample]) -> Decoded | None:
        """The sample, or None (and a line in the log) when it is damaged."""
        if (cached := self._cache.get(number)) is not None:
            return cached
        sample = raw.get(number) or self.fetch([number])[number]
        try:
            found = self._decode(sample)
        except ValueError as error:
            _log.warning(
                "%s: sample %s is passed over: %s", sample.get("__url__"), sample.get("__key__"), error
            )
            return None
        if found.nbytes <= self._room:
            self._room -= found.nbytes
            self._cache[number] = found
        return found

    def _decode(self, raw: RawSample) -> Decoded:
        image = decode_image(image_bytes(raw), self.image_size) if self.image_size is not None else None
        found = Decoded(raw["__key__"], caption(raw), image)
        if self.embedded is not None:
            embedded.add_vectors(found, raw)
        return found


def _joined(sample: RawSample, vectors: RawSample) -> RawSample:
    """Picture and vectors of one key; damage in either is damage of both."""
    joined = {**vectors, **sample}
    if sample["__key__"] != vectors["__key__"]:
        joined["__error__"] = f"its embedding has the key {vectors['__key__']}"
    return joined
