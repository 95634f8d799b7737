"""How many workers, and which world sizes share a batch equally."""

import pytest

from dalle2_train.errors import InputError
from dalle2_train.launch.worker_count import WorkerCount, check_sizes


@pytest.mark.parametrize(
    ("given", "found"), [(0, (0, 0)), (3, (3, 3)), ("4", (4, 4)), ("2:4", (2, 4)), ("1:1", (1, 1))]
)
def test_a_number_or_two(given, found):
    count = WorkerCount.of(given)
    assert (count.least, count.most) == found and WorkerCount.of(count) is count


@pytest.mark.parametrize("given", ["", "two", "4:2", "0:2", "-1", ":", "1:2:3"])
def test_anything_else_is_told(given):
    with pytest.raises(InputError, match="MIN:MAX"):
        WorkerCount.of(given)


def test_every_size_that_may_come_divides_the_lanes():
    check_sizes(WorkerCount.of(4), 8)
    check_sizes(WorkerCount.of("1:2"), 8)
    check_sizes(WorkerCount.of("1:4"), 24)
    with pytest.raises(InputError, match=r"choose 3 workers.*these do: 1, 2, 4, 8\."):
        check_sizes(WorkerCount.of("1:4"), 8)
    with pytest.raises(InputError, match="--workers 3 does not divide"):
        check_sizes(WorkerCount.of(3), 8)
