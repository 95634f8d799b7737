"""All four families train on two sharded ranks exactly as on one, in float64."""

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


@pytest.mark.system
def test_two_sharded_ranks_equal_one(tmp_path):
    script = Path(family_rank.__file__)
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }
    arguments = [str(tmp_path / "two"), "{rank}", "2", str(tmp_path / "store")]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), *(a.format(rank=rank) for a in arguments)], env=environment
        )
        for rank in range(2)
    ]
    family_rank.train_alone(tmp_path / "one")
    assert [rank.wait(timeout=240) for rank in ranks] == [0, 0]
    for family in family_rank.FAMILIES:
        one, two = tmp_path / "one" / family, tmp_path / "two" / family
        assert len(losses(one)) == family_rank.NUM_STEPS
        assert losses(one) == pytest.approx(losses(two), abs=1e-9, rel=0), family
        weights, others = (load_file(run / "model" / "model.safetensors") for run in (one, two))
        for name, value in weights.items():
            torch.testing.assert_close(others[name], value, atol=1e-9, rtol=0, msg=f"{family} {name}")
