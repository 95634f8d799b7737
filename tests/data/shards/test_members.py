"""Captions beside the pictures, or in their records."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from webdataset.writer import TarWriter

from dalle2_train.data.faults import DamagedError
from dalle2_train.data.selection.selection import select
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.members import caption, captions
from dalle2_train.data.shards.reader import Reader
from dalle2_train.data.shards.shard_index import Place


def test_a_caption_in_the_record_needs_no_txt(make_set: Callable[..., str], squares):
    uri = Path(make_set(5))
    samples = squares.read(uri / "00000.tar")
    shutil.rmtree(uri)
    uri.mkdir()
    with (uri / "00000.tar").open("wb") as stream, TarWriter(stream, encoder=False) as writer:
        for sample in samples:
            writer.write({name: sample[name] for name in ("__key__", "png", "json")})
    shards = open_set(str(uri))
    assert select(shards, "train").ledger.faulty == {}
    raws = Reader(shards).read([Place(0, number) for number in range(5)])
    assert [captions(raw, "json.caption") for raw in raws] == [[f"number {number}"] for number in range(5)]
    with pytest.raises(DamagedError) as told:
        caption(raws[0])
    assert told.value.kind == "no_caption"
