"""The reader: damage on the way, and shards that are gone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dalle2_train import storage
from dalle2_train.data.faults import DamagedError
from dalle2_train.data.shards.index import index, open_set
from dalle2_train.data.shards.members import image_bytes
from dalle2_train.data.shards.reader import Reader
from dalle2_train.data.shards.shard_index import Place

MakeSet = Callable[..., str]


def test_what_is_damaged_on_its_way_is_read_again(make_set: MakeSet, monkeypatch):
    shards = open_set(make_set(10))
    whole, read_bytes, attempts = Reader(shards).read([Place(0, 3)]), storage.read_bytes, []

    def damaging(uri: str, start: int = 0, length: int | None = None) -> bytes:
        attempts.append(uri)
        data = bytearray(read_bytes(uri, start, length))
        data[600] ^= len(attempts) == 1
        return bytes(data)

    assert "__error__" not in whole[0]
    monkeypatch.setattr(storage, "read_bytes", damaging)
    assert Reader(shards).read([Place(0, 3)]) == whole
    assert len(attempts) == 2


def test_samples_of_a_shard_that_is_gone_are_missing(make_set: MakeSet):
    uri = make_set(30)
    index(uri)
    (Path(uri) / "00001.tar").unlink()
    wanted = [Place(0, 1), Place(1, 2), Place(1, 3), Place(2, 4)]
    found = Reader(open_set(uri)).read(wanted)
    assert [sample.get("__error__") for sample in found] == [None, "missing", "missing", None]
    assert [sample["__key__"] for sample in found] == ["000000001", "000010002", "000010003", "000020004"]
    with pytest.raises(DamagedError) as told:
        image_bytes(found[1])
    assert told.value.kind == "missing"
