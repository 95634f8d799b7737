"""Digests and what came before, against Python's sets."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dalle2_train.data.selection.digests import Seen, among, digests


def test_digests_are_the_same_on_every_machine():
    theirs = ("e4a6a0577479b2b4", "3327dd2c7b9d982f")  # b2sum -l 64
    assert [value.tobytes().hex() for value in digests(["", "cat"]).astype("<u8")] == list(theirs)
    assert digests([]).tolist() == []


@given(st.lists(st.text()))
def test_equal_texts_alone_have_equal_digests(texts: list[str]):
    assert len(set(digests(texts).tolist())) == len(set(texts))


@given(st.lists(st.lists(st.integers(0, 30), max_size=12), max_size=12))
def test_first_is_what_a_set_finds(shards: list[list[int]]):
    seen, theirs = Seen(), set()
    for shard in shards:
        ours = seen.first(np.array(shard, dtype=np.uint64))
        expected = []
        for value in shard:
            expected.append(value not in theirs)
            theirs.add(value)
        assert ours.tolist() == expected
    held = [run.size for run in seen._runs]
    assert sum(held) == len(theirs), "8 bytes a sample: nothing is held twice"
    assert all(longer >= 2 * shorter for longer, shorter in pairwise(held))


@given(st.lists(st.integers(0, 9)), st.sets(st.integers(0, 9)))
def test_among(values: list[int], known: set[int]):
    found = among(np.array(values, dtype=np.uint64), np.array(sorted(known), dtype=np.uint64))
    assert found.tolist() == [value in known for value in values]
