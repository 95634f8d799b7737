"""A set as a webdataset pipeline, so that its stages compose with ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from webdataset.pipeline import DataPipeline

from dalle2_train.data.selection.selection import Selection, select
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.reader import Reader
from dalle2_train.data.shards.shard_index import Place


def pipeline(uri: str, split: str | None = None, *stages: Callable[..., Any]) -> DataPipeline:
    """One pass over a set as a `wds.DataPipeline` of raw samples, then `stages`."""
    shards = open_set(uri)
    return DataPipeline(_Source(select(shards, split)), Reader(shards), *stages)


class _Source:
    """webdataset's first stage is a callable without arguments."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def __call__(self) -> Iterator[Place]:
        return map(self.selection.place, range(len(self.selection)))
