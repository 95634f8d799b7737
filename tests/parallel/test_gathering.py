"""Rows of sharded tensors against DTensor's own, and what gloo is asked for."""

from pathlib import Path

import pytest
from collectives_seen import LONG, SHORT, read_from
from gathering_rank import compare
from processes import call_in_ranks


@pytest.mark.parametrize(("world_size", "shard"), [(4, 2), (4, 4)], ids=["two-copies", "one-copy"])
def test_rows_are_those_of_the_whole_by_a_collective_with_a_short_name(
    tmp_path: Path, world_size: int, shard: int
):
    (tmp_path / "theirs").mkdir()
    assert call_in_ranks(compare, world_size, tmp_path, shard) == [0] * world_size
    assert read_from(tmp_path) == [{"c10d::allgather_"}] * world_size
    # What is looked for would be seen.
    assert all(LONG in seen for seen in read_from(tmp_path / "theirs")) and LONG not in SHORT
