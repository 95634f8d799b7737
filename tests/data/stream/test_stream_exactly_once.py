"""Every sample of an epoch once, in the same global batches, whoever reads: ranks, loader workers, shards, filters."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import islice

import pytest
import uneven
from uneven import (
    KEPT,
    NUM_KEPT,
    SIZES,
    in_order,
    numbers_of,
    open_uneven,
    steps_of,
    write_mixture,
    write_uneven,
)

STEPS = 3 * NUM_KEPT // uneven.BATCH


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Number of shards → URI."""
    folder = tmp_path_factory.mktemp("uneven")
    return {count: write_uneven(folder / f"{count}", sizes) for count, sizes in SIZES.items()}


@pytest.fixture(scope="module")
def mixture(sets: dict[int, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two sources of 120 and 20 kept samples, seen in the ratio 2 to 1."""
    folder = tmp_path_factory.mktemp("mixture")
    small = write_uneven(folder / "small", [1, 27, 2], first=1000 * 3)
    return write_mixture(folder / "mixture.yaml", {"large": (sets[7], 2.0), "small": (small, 1.0)})


@pytest.fixture(scope="module")
def alone(sets: dict[int, str]) -> list[dict[int, int]]:
    """The global batches of three epochs, as one rank reads them from one shard without any help."""
    return steps_of(sets[1], 1, STEPS, prefetch_batches=0)[0]


@pytest.fixture(scope="module")
def mixed(mixture: str) -> list[dict[int, int]]:
    return steps_of(mixture, 1, STEPS, prefetch_batches=0)[0]


def epochs_of(numbers: Iterator[int], size: int) -> list[Counter[int]]:
    found = list(numbers)
    return [Counter(found[start : start + size]) for start in range(0, len(found), size)]


def test_each_epoch_is_every_kept_sample_once(alone: list[dict[int, int]]):
    once = dict.fromkeys(KEPT, 1)
    assert epochs_of(in_order(alone), NUM_KEPT) == [once, once, once]


@pytest.mark.parametrize("shards", SIZES)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_same_global_batches(sets: dict[int, str], alone, shards: int, world_size: int):
    assert steps_of(sets[shards], world_size, STEPS)[0] == alone


def test_the_same_from_worker_processes(sets: dict[int, str], alone):
    assert steps_of(sets[7], 1, STEPS, num_workers=2)[0] == alone


def test_iterating_anew_goes_on_after_what_was_taken(sets: dict[int, str], alone):
    with closing(open_uneven(sets[3], 0, 1)) as stream:
        assert [numbers_of(batch) for _ in range(2) for batch, _ in islice(stream, 3)] == alone[:6]


@pytest.mark.system
@pytest.mark.parametrize("shards", SIZES)
@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_the_same_in_every_combination(
    sets: dict[int, str], alone, shards: int, world_size: int, workers: int
):
    assert steps_of(sets[shards], world_size, STEPS, num_workers=workers)[0] == alone


def resized(uri: str, workers: tuple[int, int, int]) -> list[dict[int, int]]:
    """Read by 4 ranks, then 1, then 2, each going on where the ones before stood."""
    found, state = [], None
    for (world_size, steps), count in zip([(4, 7), (1, 11), (2, STEPS - 18)], workers, strict=True):
        batches, state = steps_of(uri, world_size, steps, state, num_workers=count)
        found += batches
    return found


def test_going_on_from_any_step(sets: dict[int, str], alone):
    with closing(open_uneven(sets[7], 0, 1)) as stream:
        states = [state for _, state in islice(stream, NUM_KEPT // uneven.BATCH)]
    for state in states:
        assert steps_of(sets[7], 1, 3, state)[0] == alone[state.step : state.step + 3]


def test_resized_runs_see_what_an_uninterrupted_one_sees(sets: dict[int, str], alone):
    for uri in sets.values():
        assert resized(uri, (0, 0, 0)) == alone


@pytest.mark.system
@pytest.mark.parametrize("shards", SIZES)
def test_resized_with_other_numbers_of_workers(sets: dict[int, str], alone, shards: int):
    assert resized(sets[shards], (1, 3, 2)) == alone


class TestMixture:
    """Sources with epochs of their own."""

    def test_a_lane_gets_its_part_of_each_epoch_of_each_source_once(self, mixed: list[dict[int, int]]):
        """Lanes draw their sources, so that they come to an epoch's end at different steps; each gets its part."""
        for kept, per_lane in ((KEPT, NUM_KEPT // 4), ({n for n in range(3000, 3030) if n % 3}, 5)):
            lanes: dict[int, list[int]] = {lane: [] for lane in range(uneven.LANES)}
            for batch in mixed:
                for place in sorted(batch):
                    if batch[place] in kept:
                        lanes[place % uneven.LANES].append(batch[place])
            epochs = min(map(len, lanes.values())) // per_lane
            assert epochs > 0
            for epoch in range(epochs):
                parts = [lane[epoch * per_lane : (epoch + 1) * per_lane] for lane in lanes.values()]
                assert Counter(number for part in parts for number in part) == dict.fromkeys(kept, 1)

    def test_weights_are_shares_of_the_samples(self, mixed: list[dict[int, int]]):
        large = sum(number in KEPT for number in in_order(mixed))
        total = STEPS * uneven.BATCH
        deviation = (total * 2 / 3 * 1 / 3) ** 0.5  # of a binomial of so many draws
        assert abs(large - total * 2 / 3) < 4 * deviation

    @pytest.mark.parametrize("world_size", [2, 4])
    def test_the_same_global_batches(self, mixture: str, mixed: list[dict[int, int]], world_size: int):
        assert steps_of(mixture, world_size, STEPS)[0] == mixed

    def test_resized_runs_see_what_an_uninterrupted_one_sees(self, mixture: str, mixed):
        assert resized(mixture, (0, 0, 0)) == mixed

    @pytest.mark.system
    @pytest.mark.parametrize("world_size", [1, 2, 4])
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_the_same_in_every_combination(self, mixture: str, mixed, world_size: int, workers: int):
        assert steps_of(mixture, world_size, STEPS, num_workers=workers)[0] == mixed
