"""All families train on two sharded ranks as on one: exactly in float64, nearly in bf16."""

import json
from pathlib import Path

import family_rank
import pytest
import torch
from processes import call_in_ranks
from safetensors.torch import load_file

pytestmark = pytest.mark.system


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """one/, two/ and bf16/, each with every family's run."""
    folder = tmp_path_factory.mktemp("families")
    assert call_in_ranks(family_rank.train_ranks, 2, folder) == [0, 0]
    family_rank.train_alone(folder / "one")
    return folder


@pytest.mark.parametrize("family", family_rank.FAMILIES)
def test_two_sharded_ranks_equal_one(runs, family):
    one, two = runs / "one" / family, runs / "two" / family
    assert len(losses(one)) == family_rank.NUM_STEPS
    assert losses(one) == pytest.approx(losses(two), abs=1e-9, rel=0)
    weights, others = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, atol=1e-9, rtol=0, msg=name)


@pytest.mark.parametrize("family", family_rank.FAMILIES)
def test_two_sharded_ranks_compute_in_bf16(runs, family):
    exact, rounded = losses(runs / "one" / family), losses(runs / "bf16" / family)
    # bf16 has 8 bits: a few parts in a thousand a layer. Equal losses would mean that nothing was rounded.
    assert rounded == pytest.approx(exact, rel=0.05) and rounded != pytest.approx(exact, rel=1e-6)
