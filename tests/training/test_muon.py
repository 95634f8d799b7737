"""Muon inside a training: over ranks, whose matrices are in pieces, and after a restart."""

import shutil
from pathlib import Path

import pytest
import torch
from collectives_seen import SHORT, read_from
from muon_rank import note_steps, save_weights, weights_after_steps
from processes import call_in_ranks, run_ranks
from safetensors.torch import load_file
from toy_training import losses, train_alone

from dalle2_train.checkpoints.layout import checkpoint_uri


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    train_alone(str(run), dtype=torch.float64, optimizer="muon")
    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("options", [{"micro_batch_size": 3}, {"shard": 1}], ids=["sharded", "replicas"])
def test_two_ranks_equal_one(one: Path, tmp_path: Path, options: dict):
    run = tmp_path / "run"
    assert run_ranks(run, 2, dtype="float64", optimizer="muon", **options) == [(0, ""), (0, "")]
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(run)[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shard", [2, 1])
def test_kernels_of_convolutions_in_pieces_are_stepped_whole(tmp_path: Path, shard: int):
    assert call_in_ranks(save_weights, 2, tmp_path, shard) == [0, 0]
    found, alone = torch.load(tmp_path / "weights.pt"), weights_after_steps(1, 1)
    for name, value in alone.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10)


def test_its_steps_ask_gloo_for_collectives_with_short_names_alone(tmp_path: Path):
    assert call_in_ranks(note_steps, 2, tmp_path, 2) == [0, 0]
    assert [bool(seen) and seen <= SHORT for seen in read_from(tmp_path)] == [True, True]


def test_a_restart_goes_on_with_the_very_same_bits(one: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(one, run)
    shutil.rmtree(run / "model")
    shutil.rmtree(checkpoint_uri(str(run), 12))
    assert train_alone(str(run), dtype=torch.float64, optimizer="muon").resumed_from == 8
    assert losses(str(run)) == losses(str(one))
    assert all(torch.equal(weights_of(run)[name], value) for name, value in weights_of(one).items())
