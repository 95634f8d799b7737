"""A folder to an object store: all of it or a part that the next upload completes, and nothing of anybody else's."""

import uuid
from pathlib import Path

import pytest

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.export.report import is_exported, proved_export
from dalle2_train.export.upload import MARKER, check_goes_on, upload
from dalle2_train.storage import publish_file

FILES = {"a/weights": b"weights", "b/weights": b"other weights", "config.json": b"{}", "index.json": b"[]"}
ABOUT = {"models": {"decoder": "0123"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "folder", FILES)


@pytest.fixture
def to() -> str:
    return f"memory://{uuid.uuid4().hex}/export"


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def at(to: str) -> dict[str, bytes]:
    return {uri.removeprefix(to + "/"): storage.read_bytes(uri) for uri in storage.list_files(to)}


class Uploads(list[str]):
    """The names of what is uploaded; the upload with the number `broken` fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, broken: int | None = None) -> None:
        def publish(local: Path, uri: str) -> str:
            if len(self) == broken:
                raise ConnectionResetError
            self.append(local.name)
            return publish_file(local, uri)

        monkeypatch.setattr(storage, "publish_file", publish)


def interrupt(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """An upload that breaks when `after` files are there."""
    Uploads(monkeypatch, broken=after)
    with pytest.raises(ConnectionResetError):
        upload(folder, to, "index.json", ABOUT)
    Uploads(monkeypatch)


def test_all_is_there_the_last_file_last(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch):
    uploads = Uploads(monkeypatch)
    upload(folder, to, "config.json", ABOUT)
    assert at(to) == FILES
    assert uploads[-1] == "config.json" and len(uploads) == len(FILES)


@pytest.mark.parametrize("done", range(len(FILES)))
def test_an_interrupted_one_goes_on(folder: Path, to: str, done: int, monkeypatch: pytest.MonkeyPatch):
    interrupt(folder, to, monkeypatch, after=done)
    assert "index.json" not in at(to)
    check_goes_on(to, ABOUT)
    again = Uploads(monkeypatch)
    upload(folder, to, "index.json", ABOUT)
    assert at(to) == FILES and len(again) == len(FILES) - done


def test_what_has_become_another_is_replaced_and_what_is_no_more_removed(
    folder: Path, to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupt(folder, to, monkeypatch, after=3)
    # As long as the old one: its size does not tell.
    others = {"a/weights": b"WEIGHTS", "b/weights": FILES["b/weights"], "index.json": b"[]"}
    again = Uploads(monkeypatch)
    upload(write(tmp_path / "others", others), to, "index.json", ABOUT)
    assert at(to) == others and again == ["weights", "index.json"]


def test_a_file_cut_short_is_uploaded_again(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch):
    interrupt(folder, to, monkeypatch, after=2)
    storage.publish_bytes(f"{to}/a/weights", b"weig")
    upload(folder, to, "index.json", ABOUT)
    assert at(to) == FILES


def test_what_others_put_there_stays_and_is_told(folder: Path, to: str, monkeypatch: pytest.MonkeyPatch):
    storage.publish_bytes(f"{to}/mine.txt", b"mine")
    for step in (lambda: check_goes_on(to, ABOUT), lambda: upload(folder, to, "index.json", ABOUT)):
        with pytest.raises(InputError, match="something is there already"):
            step()
    assert at(to) == {"mine.txt": b"mine"}
    storage.remove(f"{to}/mine.txt")
    interrupt(folder, to, monkeypatch, after=1)
    with pytest.raises(InputError, match="the unfinished upload of another export"):
        check_goes_on(to, {"models": {"decoder": "4567"}})
    storage.publish_bytes(f"{to}/mine.txt", b"mine")
    with pytest.raises(InputError, match="something is there already"):
        upload(folder, to, "index.json", ABOUT)
    assert at(to)["mine.txt"] == b"mine"


@pytest.mark.parametrize("text", [b"[]", b'{"files": {}}', b'{"about": {}, "files": []}'])
def test_a_marker_of_another_program_is_anothers_file(folder: Path, to: str, text: bytes):
    storage.publish_bytes(f"{to}/{MARKER}", text)
    with pytest.raises(InputError, match="something is there already"):
        check_goes_on(to, ABOUT)


def test_looking_at_a_finished_one_leaves_the_marker_that_exporting_again_removes(to: str):
    def make(folder: Path) -> dict[str, float]:
        write(folder, FILES)
        return {"difference": 0.0}

    proved_export(to, ABOUT, "index.json", make)
    storage.publish_json(f"{to}/{MARKER}", {"about": ABOUT, "files": {}})
    there = at(to)
    assert is_exported(to, ABOUT, "index.json") and at(to) == there
    proved_export(to, ABOUT, "index.json", make)
    assert at(to).keys() == there.keys() - {MARKER}
