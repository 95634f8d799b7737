"""However ranks share the weights and the batch, the numbers are those of one process."""

import json
from itertools import product
from pathlib import Path

import numerics_rank
import pytest
from numerics_rank import Layout
from processes import call_in_ranks

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1800)]

FAMILIES = ("prior", "decoder")
ALONE = Layout(1, 1)
SHARES = {"DDP": (2, 1), "FSDP": (2, 2), "DDP of 4": (4, 1), "FSDP of 4": (4, 4), "HSDP": (4, 2)}
LAYOUTS = [
    Layout(world_size, shard, accumulation, recomputes)
    for (world_size, shard), accumulation, recomputes in product(SHARES.values(), (1, 4), (False, True))
]
LAYOUTS += [Layout(1, 1, 4, True), Layout(2, 2, reshard_after_forward=False)]
# A decoder of four ranks takes its time on two cores: what is on and off is then on and off together.
CASES = [
    (family, layout)
    for family, layout in product(FAMILIES, LAYOUTS)
    if (family, layout.world_size) != ("decoder", 4)
    or (layout.accumulation == 4) == layout.activation_checkpointing
]
RELATIVE = {"float64": 1e-10, "float32": 1e-5}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    """Every family's every run, one JSON file each."""
    folder = tmp_path_factory.mktemp("numerics")
    for world_size, family in product((2, 4), FAMILIES):
        layouts = [one for of, one in CASES if of == family and one.world_size == world_size]
        jobs = [(family, dtype, layout) for layout, dtype in product(layouts, RELATIVE)]
        codes = call_in_ranks(numerics_rank.train_layouts, world_size, folder, jobs, seconds=1500)
        assert codes == [0] * world_size
    for family, dtype in product(FAMILIES, RELATIVE):
        for layout in (ALONE, *(one for one in LAYOUTS if one.world_size == 1)):
            numerics_rank.train_alone(folder, family, dtype, layout)
    return folder


def _name(value: str | Layout) -> str:
    return value if isinstance(value, str) else value.name


def read(folder: Path, family: str, dtype: str, layout: Layout) -> dict:
    return json.loads((folder / f"{family}-{dtype}-{layout.name}.json").read_text())


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize(("family", "layout"), CASES, ids=_name)
def test_the_losses_are_those_of_one_process(found, family, dtype, layout):
    ours, alone = (read(found, family, dtype, one)["losses"] for one in (layout, ALONE))
    assert len(ours) == numerics_rank.DTYPES[dtype][1] and len(set(ours)) == len(ours)
    assert ours == pytest.approx(alone, rel=RELATIVE[dtype])


@pytest.mark.parametrize(("family", "layout"), CASES, ids=_name)
def test_the_sharded_average_is_that_of_the_gathered_parameters_bit_for_bit(found, family, layout):
    assert read(found, family, "float32", layout)["averages_that_differ"] == []
    assert read(found, family, "float64", layout)["averages_that_differ"] == []


@pytest.mark.parametrize(("family", "layout"), CASES, ids=_name)
def test_a_rank_holds_its_share_and_no_more(found, family, layout):
    one = read(found, family, "float64", ALONE)
    (total,), held = one["held"], read(found, family, "float64", layout)["held"]
    # Parameter, gradient, two moments and the average.
    block = 5 * 8 * one["largest_block"]
    assert max(held) <= 1.1 * (total / layout.shard + block)
    assert sum(held) * layout.shard >= total * layout.world_size
