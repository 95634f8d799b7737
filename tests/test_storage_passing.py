"""A local folder, an NFS's among them, that fails in passing: what was to be done is done in the end, and once."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest
from failing import fail_in_passing, retry_quickly

from dalle2_train import storage


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_what_is_published_is_there_in_the_end(tmp_path: Path, monkeypatch, name: str):
    source, target = tmp_path / "source", tmp_path / "to" / "a.bin"
    source.write_bytes(os.urandom(3_000_000))
    whole = hashlib.sha256(source.read_bytes()).hexdigest()
    failures = fail_in_passing(monkeypatch, name, 3)
    assert storage.publish_file(source, str(target)) == whole
    assert len(failures) == 3
    failures.clear()
    storage.publish_json(str(tmp_path / "to" / "b.json"), 7)
    assert len(failures) == 3
    assert storage.sha256_file(target) == whole and storage.read_json(str(tmp_path / "to" / "b.json")) == 7
    assert sorted(os.listdir(tmp_path / "to")) == ["a.bin", "b.json"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_a_rename_whose_answer_was_lost(tmp_path: Path, monkeypatch, code: int):
    """It was done; asked again, the server finds nothing to rename."""
    fail_in_passing(monkeypatch, "replace", 1, os.rename, code)
    storage.publish_bytes(str(tmp_path / "a"), b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole" and os.listdir(tmp_path) == ["a"]


def test_a_folder_that_stays_away_is_told_as_that(tmp_path: Path, monkeypatch):
    fail_in_passing(monkeypatch, "replace", float("inf"))
    with pytest.raises(storage.UnreachableError, match=r"a\.json"):
        storage.publish_json(str(tmp_path / "a.json"), 1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_who_was_first_is_told_so_though_the_answer_was_lost(tmp_path: Path, monkeypatch, code: int):
    uri = str(tmp_path / "a" / "lease")
    failures = fail_in_passing(monkeypatch, "link", 1, os.link, code)
    assert storage.publish_new(uri, b"ours") and len(failures) == 1
    failures.clear()
    assert not storage.publish_new(uri, b"theirs")
    assert storage.read_bytes(uri) == b"ours" and os.listdir(tmp_path / "a") == ["lease"]


def test_storage_that_cannot_tell_who_was_first_says_so(tmp_path: Path, monkeypatch):
    fail_in_passing(monkeypatch, "link", 1, code=errno.EPERM)
    for uri in (str(tmp_path / "a"), f"memory://{tmp_path.name}/a"):
        with pytest.raises(NotImplementedError, match="who was first"):
            storage.publish_new(uri, b"")
        assert not storage.exists(uri)
    assert os.listdir(tmp_path) == []


def test_what_is_there_is_no_absence_meanwhile(tmp_path: Path, monkeypatch):
    file, missing = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"")
    failures = fail_in_passing(monkeypatch, "stat", 3, under=tmp_path)
    for path, is_there in ((file, True), (missing, False), (file / "below", False)):
        assert storage.exists(str(path)) is is_there
        assert len(failures) == 3
        failures.clear()
    with storage.as_local(str(file)) as local:
        assert local == file and len(failures) == 3
    failures.clear()
    with pytest.raises(storage.MissingError), storage.as_local(str(tmp_path)):
        pass
    assert len(failures) == 3


def test_a_folder_that_stays_away_is_not_said_to_have_nothing(tmp_path: Path, monkeypatch):
    fail_in_passing(monkeypatch, "stat", float("inf"), under=tmp_path)
    with pytest.raises(storage.UnreachableError, match=r"[Ss]tale"):
        storage.exists(str(tmp_path))


@pytest.mark.parametrize("folder", ["", "a", "a/b"])
def test_a_listing_has_all_or_is_none(tmp_path: Path, monkeypatch, folder: str):
    """A run whose checkpoints are not listed for a moment would begin anew."""
    files = [str(tmp_path / name) for name in ("a/0.tar", "a/b/1.tar", "a/b/2.tar")]
    for file in files:
        storage.publish_bytes(file, b"")
    for listed in (storage.list_files, lambda uri: storage.glob(f"{uri}/**/*.tar")):
        with monkeypatch.context() as failing:
            failures = fail_in_passing(failing, "scandir", 2, under=tmp_path / folder)
            assert listed(str(tmp_path)) == files and len(failures) == 2
        with monkeypatch.context() as away:
            fail_in_passing(away, "scandir", float("inf"), under=tmp_path / folder)
            with pytest.raises(storage.UnreachableError, match=r"[Ss]tale"):
                listed(str(tmp_path))
    with monkeypatch.context() as failing:
        failures = fail_in_passing(failing, "scandir", 2, under=tmp_path)
        assert list(storage.list_folder(f"{tmp_path}/a/b")) == files[1:] and len(failures) == 2


def test_names_that_no_file_has_are_absences(tmp_path: Path):
    (tmp_path / "round").symlink_to("round")
    assert not storage.exists(str(tmp_path / "round")) and not storage.exists(f"{tmp_path}/nul\0")


def test_a_sweep_sees_a_folder_that_fails_in_passing(tmp_path: Path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".partial-1").write_bytes(b"half")
    failures = fail_in_passing(monkeypatch, "scandir", 2, under=tmp_path)
    storage.sweep(str(tmp_path))
    assert len(failures) == 2 and os.listdir(tmp_path / "a") == []


def test_a_sweep_leaves_a_folder_in_which_a_file_grows(tmp_path: Path):
    long_ago = time.time() - 1000
    for name, written in ((".partial-left", long_ago), (".partial-growing", time.time())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.tar").write_bytes(b"half")
        os.utime(tmp_path / name / "00000.tar", (written, written))
        os.utime(tmp_path / name, (long_ago, long_ago))
    storage.sweep(str(tmp_path), 600)
    assert os.listdir(tmp_path) == [".partial-growing"]
