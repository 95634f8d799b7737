"""All families train on two sharded ranks as on one: exactly in float64, nearly in bf16."""

import json
import os
import subprocess
import sys
from pathlib import Path

import family_rank
import pytest
import torch
from safetensors.torch import load_file


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


def start_ranks(runs: Path, precision: str) -> list[subprocess.Popen]:
    """Two processes that train all families into `runs`."""
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    script, store = family_rank.__file__, f"{runs}-store"
    arguments = [[str(runs), str(rank), "2", store, precision] for rank in range(2)]
    return [subprocess.Popen([sys.executable, script, *rest], env=environment) for rest in arguments]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """one/, two/ and bf16/, each with every family's run."""
    folder = tmp_path_factory.mktemp("families")
    ranks = start_ranks(folder / "two", "fp32")
    family_rank.train_alone(folder / "one")
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    ranks = start_ranks(folder / "bf16", "bf16")
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
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
