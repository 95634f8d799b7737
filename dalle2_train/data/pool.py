"""The samples of a split by number: read, decoded, and kept while memory allows."""

from __future__ import annotations

import logging

from dalle2_train.data import embedded
from dalle2_train.data.decode_sample import DecodeSample
from dalle2_train.data.decoded import Decoded
from dalle2_train.data.faults import Fault
from dalle2_train.data.filters import FilterConfig
from dalle2_train.data.loader import Loader, Wanted
from dalle2_train.data.manifest import ShardSet
from dalle2_train.data.reader import RawSample, Reader
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
        vectors = embedded.joined_reader(shards, embeddings) if embeddings else None
        pictures = Reader(shards) if image_size is not None or vectors is None else None
        self.loader = Loader(DecodeSample(image_size, vectors is not None), pictures, vectors)
        self._cache: dict[int, Decoded] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.selection)

    def fetch(self, ids: list[int]) -> dict[int, RawSample]:
        """The raw samples of those `ids` that are not decoded yet."""
        missing = [number for number in dict.fromkeys(ids) if number not in self._cache]
        raw = self.loader.read([self.selection.place(number) for number in missing]) if missing else []
        return dict(zip(missing, raw, strict=True))

    def decoded(self, number: int, raw: dict[int, RawSample], key: int) -> Decoded | None:
        """The sample, or None (and a line in the log) when it is damaged."""
        if (cached := self._cache.get(number)) is not None:
            return cached
        sample = raw.get(number) or self.fetch([number])[number]
        found = self.loader.decoded(Wanted(self.selection.place(number), key), sample)
        if isinstance(found, Fault):
            _log.warning("%s: sample %s is passed over: %s", found.shard, found.key, found.reason)
            return None
        if not self.loader.decode.draws and found.nbytes <= self._room:
            self._room -= found.nbytes
            self._cache[number] = found
        return found
