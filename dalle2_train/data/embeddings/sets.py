"""An embedded set as what it is read by: its parts' rows, captions and vectors; and as a set to train on alone.

N rows, L text length, E embedding.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.embeddings import layout, metadata
from dalle2_train.data.embeddings.columns import Header, read_header
from dalle2_train.data.embeddings.layout import EmbeddingManifest, Part, file_name
from dalle2_train.data.shards import index, locate
from dalle2_train.data.shards import manifest as manifests
from dalle2_train.data.shards.manifest import Shard, ShardManifest, ShardSet
from dalle2_train.data.shards.shard_index import ShardIndex
from dalle2_train.errors import InputError

_CAPTION_BYTES = 1 << 28


class EmbeddingSet(ShardSet):
    """A set whose shards are parts of embeddings: `index` tells of a part's rows, there are no tars."""

    def __init__(self, home: str, embeddings: EmbeddingManifest) -> None:
        super().__init__(home, _as_shards(embeddings))
        self.embeddings = embeddings
        self.header = lru_cache(1024)(self._read_header)
        self._captions: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> tuple[str, EmbeddingManifest]:
        return self.home, self.embeddings

    def __setstate__(self, state: tuple[str, EmbeddingManifest]) -> None:
        self.__init__(*state)

    def uri(self, number: int, column: str = layout.METADATA) -> str:
        """Of a part's column."""
        return storage.join(self.home, file_name(column, self.embeddings.parts[number].name))

    def name(self, number: int) -> str:
        return file_name(layout.METADATA, self.embeddings.parts[number].name).rsplit("/", 1)[-1]

    def captions(self, number: int, rows: NDArray[np.integer]) -> list[str]:
        """Those of some rows of a part. The columns of the last parts are kept, up to a bound of bytes."""
        if number not in self._captions:
            self._captions[number] = metadata.read_captions(self.uri(number))
            while len(self._captions) > 1 and sum(c.nbytes for c in self._captions.values()) > _CAPTION_BYTES:
                self._captions.popitem(last=False)
        self._captions.move_to_end(number)
        return [text or "" for text in self._captions[number].take(pa.array(rows)).to_pylist()]

    def _read_header(self, number: int, column: str) -> Header:
        return read_header(self.uri(number, column))

    def _read_index(self, number: int) -> ShardIndex:
        part = self.embeddings.parts[number]
        return metadata.read_index(self.uri(number), part.name, part.num_samples)


def open_embeddings(uri: str) -> EmbeddingSet:
    """The embedded set in the folder `uri`, or beside the shards that it means. None there: InputError."""
    home = locate.home_of(uri)
    if not layout.has_embeddings(home):
        raise InputError(f"{uri}: holds no embeddings; make them with `shards embed` and give their folder as "
                         "--embeddings, or let `shards index URI --clip MODEL` take up those of another "
                         "program")  # fmt: skip
    return EmbeddingSet(home, layout.load(home))


def open_data(uri: str) -> ShardSet:
    """The shards that `uri` means (their manifest is made now where there is none), or embeddings without shards."""
    home = locate.home_of(uri)
    if layout.has_embeddings(home) and not manifests.has_manifest(home) and not locate.shard_uris(uri):
        return EmbeddingSet(home, layout.load(home))
    return index.open_set(uri)


def _as_shards(embeddings: EmbeddingManifest) -> ShardManifest:
    return ShardManifest(tuple(_as_shard(part) for part in embeddings.parts), {"kind": "embeddings"})


def _as_shard(part: Part) -> Shard:
    return Shard(
        path=file_name(layout.METADATA, part.name),
        size=0,
        sha256=layout.digest_of(part),
        num_samples=part.num_samples,
        splits=part.splits,
        num_expected=part.num_samples,
    )
