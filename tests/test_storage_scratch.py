"""Folders of killed processes are removed by the next one, those of living ones never."""

import multiprocessing as mp
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from dalle2_train.storage.scratch import Scratch, sweep_scratch


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def hold(folder: Path, pipe: Any) -> None:
    tempfile.tempdir = str(folder)
    scratch = Scratch()
    (scratch.path / "tensors").write_bytes(b"x" * 100)
    pipe.send(str(scratch.path))
    pipe.recv()


def test_it_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    with Scratch() as scratch:
        (scratch.path / "part").mkdir()
        sweep_scratch()
        assert scratch.path.is_dir()
    assert list(tmp_path.iterdir()) == []
    scratch.close()


def test_what_a_killed_process_left_is_removed_and_a_living_ones_stays(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    folder = Path(ours.recv())
    sweep_scratch()
    assert (folder / "tensors").exists()
    process.kill()
    process.join()
    assert folder.exists()
    with Scratch() as scratch:
        assert list(tmp_path.iterdir()) == [scratch.path]


def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / "dalle2-train-data", tmp_path / "other"]
    for folder in others:
        folder.mkdir()
    Scratch().close()
    assert sorted(tmp_path.iterdir()) == others


def test_the_lock_ends_with_the_folder(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        Scratch().close()
    assert len(os.listdir("/proc/self/fd")) == before
