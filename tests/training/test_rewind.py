"""A run that is no number any more goes back, and on without the batches that led there."""

import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import losses, train_alone

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, left_out_uri, stop_uri
from dalle2_train.errors import PreemptedError, RefusedError
from dalle2_train.training.rewind import LeftOut, RewindError, left_out_steps, read_left_out

# Steps are counted from 0 here: two bad ones, and the one before them is left out too.
BAD = {"nan_steps": (8, 9), "max_nonfinite_steps": 2, "rewind_steps": 1}


def test_it_goes_back_and_on_without_them(tmp_path):
    run = str(tmp_path / "run")
    with pytest.raises(RewindError, match="going back to step 4, and on without steps 8 to 10"):
        train_alone(run, dropout=0.3, **BAD)
    # The checkpoint of step 8 is of a history that is given up.
    assert committed_steps(run) == [4] and left_out_steps(run) == {7, 8, 9}
    again = train_alone(run, dropout=0.3, **BAD)
    assert (again.resumed_from, again.step) == (4, 12)
    never = str(tmp_path / "never")
    train_alone(never, dropout=0.3, nan_steps=(7, 8, 9))
    ours, theirs = (load_file(f"{folder}/model/model.safetensors") for folder in (run, never))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert losses(run)[10:] == losses(never)[10:]


def test_it_gives_up_in_the_end(tmp_path):
    run, bad = str(tmp_path / "run"), {"max_nonfinite_steps": 2, "rewind_steps": 0, "max_rewinds": 1}
    with pytest.raises(RewindError):
        train_alone(run, nan_steps=(5, 6, 9, 10), **bad)
    with pytest.raises(RefusedError, match=r"training\.max_rewinds=1 is used up"):
        train_alone(run, nan_steps=(5, 6, 9, 10), **bad)
    assert [(one.first, one.last) for one in read_left_out(run)] == [(5, 6)]


def test_without_a_checkpoint_before_it_there_is_nothing_to_go_back_to(tmp_path):
    with pytest.raises(RefusedError, match="no whole checkpoint of step 2 or before"):
        train_alone(str(tmp_path / "run"), nan_steps=(3, 4), max_nonfinite_steps=2, rewind_steps=1)


def test_what_is_left_out_is_written_down(tmp_path):
    began = time.time() * 1000
    with pytest.raises(RewindError):
        train_alone(str(tmp_path / "run"), **BAD)
    (left_out,) = read_left_out(str(tmp_path / "run"))
    assert left_out.to == 4 and began - 1 <= left_out.when <= time.time() * 1000
    assert (left_out.first, left_out.last, left_out.is_done) == (7, 9, True)
    assert "not finite 2 steps in a row, up to step 10" in left_out.reason


def test_a_later_rewind_is_later_by_a_clock_that_is_behind_too(tmp_path):
    run, ahead = str(tmp_path / "run"), int(time.time() * 1000) + 3_600_000
    of_old = {"first": 0, "last": 0, "reason": "not finite", "is_done": True}
    storage.publish_json(left_out_uri(run), [of_old, of_old | {"to": 0, "when": ahead}])
    with pytest.raises(RewindError):
        train_alone(run, max_rewinds=3, **BAD)
    assert [one.when for one in read_left_out(run)] == [None, ahead, ahead + 1]


def test_a_rewind_that_was_cut_off_is_finished_by_the_next_start(tmp_path):
    run = str(tmp_path / "run")
    acts = {8: lambda: storage.publish_bytes(stop_uri(run), b"")}
    with pytest.raises(PreemptedError):
        train_alone(run, data={"acts": acts}, seconds=0.3, keep_checkpoints=9)
    assert committed_steps(run)[-1] >= 8
    storage.remove(stop_uri(run))
    cut = LeftOut(5, 6, "not finite", is_done=False)
    storage.publish_json(left_out_uri(run), [asdict(cut)])
    again = train_alone(run)
    assert again.resumed_from == 4 and read_left_out(run)[0].is_done


def test_it_goes_back_past_a_damaged_checkpoint(tmp_path):
    run = str(tmp_path / "run")

    def damage() -> None:
        Path(checkpoint_uri(run, 4), "__0_0.distcp").write_bytes(b"damaged")

    with pytest.raises(RewindError, match="going back to step 2"):
        train_alone(run, checkpoint_every_steps=2, keep_checkpoints=9, nan_steps=(6, 7), max_nonfinite_steps=2,
                    rewind_steps=1, data={"acts": {7: damage}})  # fmt: skip
    assert train_alone(run).resumed_from == 2
