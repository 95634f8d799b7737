"""The order: every sample once an epoch, lanes by cursor alone."""

from collections import Counter

import numpy as np
import pytest

from dalle2_train.data.stream.order import Order
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.errors import InputError


def in_sequence(order: Order, rounds: int) -> list[int]:
    return [
        int(sample)
        for number in range(rounds)
        for lane in range(order.num_lanes)
        for sample in order.chunk(lane, number)
    ]


@pytest.mark.parametrize(
    ("samples", "lanes", "block"), [(1000, 8, 16), (37, 4, 5), (3, 8, 64), (64, 8, 8), (101, 2, 1)]
)
def test_every_sample_comes_once_an_epoch(samples: int, lanes: int, block: int):
    order = Order(samples, lanes, block, seed=3)
    rounds = 1 + 3 * samples // (lanes * block)
    found = in_sequence(order, rounds)
    counts = np.array([Counter(found)[sample] for sample in range(samples)])
    assert set(found) <= set(range(samples))
    assert counts.max() - counts.min() <= 1


def test_whole_epochs_are_permutations():
    order = Order(96, 4, 8, seed=0)  # 3 rounds of 32 are an epoch
    found = in_sequence(order, 6)
    first, second = found[:96], found[96:]
    assert sorted(first) == sorted(second) == list(range(96))
    assert first != second
    assert list(range(96)) not in (first, second)


def test_seeds_differ_and_shuffle_false_keeps_the_order():
    assert in_sequence(Order(50, 2, 5, seed=0), 5) != in_sequence(Order(50, 2, 5, seed=1), 5)
    assert in_sequence(Order(50, 2, 5, seed=0, shuffle=False), 5) == list(range(50))


def test_neighbours_are_read_together():
    order = Order(6400, 8, 64, seed=0)
    for lane in range(8):
        gaps = np.diff(np.sort(order.chunk(lane, 2)))
        assert (gaps > 1).sum() <= 2  # at most three runs of neighbours


def test_states_merge_and_survive_json():
    parts = [
        OrderState(3, {0: (6, 1), 2: (7, 2)}, "x", {0: (0, 1), 2: (1, 0)}),
        OrderState(3, {1: (6, 3)}, "x", {1: (0, 0)}),
    ]
    merged = OrderState.merge(parts)
    assert merged.cursors == {0: (6, 1), 1: (6, 3), 2: (7, 2)}
    assert (merged.quarantined, merged.delivered) == ((1, 1), (18, 5))
    assert OrderState.from_json(merged.to_json()) == merged
    with pytest.raises(InputError, match="different steps or data"):
        OrderState.merge([parts[0], OrderState(4, {1: (6, 3)}, "x")])
    with pytest.raises(InputError, match="not an order state"):
        OrderState.from_json({"step": 1})
