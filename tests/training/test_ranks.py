"""Two ranks in two processes, over gloo: the same numbers as one."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lame_ranks import fail_after_drawing, fail_before_drawing
from processes import finish_ranks, run_ranks, start_ranks
from safetensors.torch import load_file
from toy_training import losses, train_alone

from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps
from dalle2_train.checkpoints.manifest import publish_manifest, read_manifest


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    train_alone(str(run), dtype=torch.float64, nan_steps=(5,))
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("two") / "run"
    assert run_ranks(run, 2, dtype="float64", nan_steps=(5,)) == [(0, ""), (0, "")]
    return run


def test_two_sharded_ranks_equal_one(one, two):
    ours, theirs = losses(str(two)), losses(str(one))
    # The step that one rank alone could not compute is left out by both.
    assert ours[5] is theirs[5] is None
    del ours[5], theirs[5]
    assert ours == pytest.approx(theirs, rel=1e-12)
    _assert_same_weights(two, one)


def test_two_replicas_equal_one(one, tmp_path):
    assert run_ranks(tmp_path / "run", 2, dtype="float64", nan_steps=(5,), shard=1) == [(0, ""), (0, "")]
    _assert_same_weights(tmp_path / "run", one)


def test_micro_batches_exchange_gradients_once_and_change_nothing(one, tmp_path):
    options = {"dtype": "float64", "nan_steps": (5,), "micro_batch_size": 3}
    assert run_ranks(tmp_path / "run", 2, **options) == [(0, ""), (0, "")]
    _assert_same_weights(tmp_path / "run", one)


def test_every_rank_writes_its_part_and_the_order_is_of_both(two):
    manifest = read_manifest(checkpoint_uri(str(two), 12))
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "note.txt"} == set(manifest.files)
    assert manifest.world_size == 2 and manifest.order == {"step": 12, "ranks": [0, 1]}


def test_a_checkpoint_of_two_ranks_goes_on_with_one(one, two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    shutil.rmtree(run / "model")
    shutil.rmtree(checkpoint_uri(str(run), 12))
    assert train_alone(str(run), dtype=torch.float64, nan_steps=(5,)).resumed_from == 8
    assert losses(str(run))[8:] == pytest.approx(losses(str(one))[8:], rel=1e-12)
    _assert_same_weights(run, one)


def test_a_checkpoint_of_one_rank_goes_on_with_two(one, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(one, run)
    shutil.rmtree(run / "model")
    # A newer checkpoint in which only the second rank's half of the check can see the fault.
    newest = checkpoint_uri(str(run), 12)
    manifest = read_manifest(newest)
    names = list(manifest.files)
    Path(newest, names[1]).write_bytes(b"damaged")
    results = run_ranks(run, 2, dtype="float64", nan_steps=(5,))
    assert [code for code, _ in results] == [0, 0]
    assert "is not whole" in results[0][1] and "step-00000008" in results[0][1]
    _assert_same_weights(run, one)


def test_both_ranks_stop_when_one_is_told_to(tmp_path):
    run = tmp_path / "run"
    ranks = start_ranks(run, 2, seconds=0.05, num_steps=1000, stop_rank=1)
    results = finish_ranks(run, ranks)
    assert all(code != 0 and "PreemptedError" in error for code, error in results)
    assert committed_steps(str(run))[-1] < 1000


def test_a_rank_that_fails_to_draw_alone_ends_the_attempt_rather_than_let_the_others_wait(tmp_path):
    options = {"sampler": fail_before_drawing, "sample_every_steps": 6, "picture_patience": 3.0}
    results = run_ranks(tmp_path / "run", 2, **options)
    assert [code for code, _ in results] == [1, 1]
    assert "sample_every_steps=0 goes on without: no room" in results[1][1]


def test_pictures_that_failed_when_nobody_waits_any_more_stop_nothing(tmp_path, two):
    run = tmp_path / "run"
    options = {"sampler": fail_after_drawing, "sample_every_steps": 6, "dtype": "float64", "nan_steps": (5,)}
    results = run_ranks(run, 2, **options)
    assert [code for code, _ in results] == [0, 0] and "no room" in results[1][1]
    assert not (run / "samples").exists()
    assert losses(str(run)) == losses(str(two))


def test_a_checkpoint_without_manifest_is_not_there(two, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    folder = Path(checkpoint_uri(str(run), 12))
    manifest = read_manifest(str(folder))
    (folder / "manifest.json").unlink()
    assert committed_steps(str(run)) == [8]
    publish_manifest(str(folder), replace(manifest, step=12))
    assert committed_steps(str(run)) == [8, 12]


def _assert_same_weights(run, other):
    ours, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (run, other))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-12, atol=1e-14)
