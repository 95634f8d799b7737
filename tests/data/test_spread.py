"""Work on many shards at once finds what work on one after another finds."""

import operator
from collections.abc import Callable
from pathlib import Path

from dalle2_train.data.check.doctor import check
from dalle2_train.data.spread import in_processes


def test_results_come_in_order():
    assert list(in_processes(operator.neg, range(40))) == [-number for number in range(40)]
    assert list(in_processes(operator.neg, range(3))) == [0, -1, -2]


def test_the_check_of_many_shards_finds_the_same(make_set: Callable[..., str]):
    uri = make_set(40, samples_per_shard=2)
    for number in (3, 11):
        tar = Path(uri, f"{number:05d}.tar")
        tar.write_bytes(tar.read_bytes()[:3000])
    alone = check(uri)
    assert {fault.shard for fault in alone.faults} == {"00003.tar", "00011.tar"}
    assert check(uri, map_shards=in_processes) == alone
