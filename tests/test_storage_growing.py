"""Lines that are appended where storage fails in passing: each is there once, and whole."""

import errno
import json
import os
from pathlib import Path

import pytest
from failing import fail_in_passing, retry_quickly

from dalle2_train.storage import growing, publish_bytes, read_bytes
from dalle2_train.storage.lines import JsonLines


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    retry_quickly(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two lines of an attempt before."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n')
    return path


def write(lines: JsonLines, *numbers: int) -> None:
    for number in numbers:
        lines.add({"n": number})


def numbers_in(file: Path) -> list[int]:
    return [json.loads(line)["n"] for line in file.read_text().splitlines()]


@pytest.mark.parametrize("cut", [0, 3, 9])
def test_a_line_is_neither_torn_nor_doubled(file: Path, monkeypatch, cut: int):
    """Of the line that fails, `cut` bytes had been written."""
    lines, write_at = JsonLines(str(file)), os.pwrite
    write(lines, 2)
    failures = fail_in_passing(
        monkeypatch, "pwrite", 3, lambda fd, data, place: write_at(fd, data[:cut], place)
    )
    write(lines, 3)
    assert len(failures) == 3 and numbers_in(file) == [0, 1, 2, 3]
    write(lines, 4)
    lines.close()
    assert numbers_in(file) == [0, 1, 2, 3, 4]


def test_a_short_write_is_gone_on_with(file: Path, monkeypatch):
    lines, write_at = JsonLines(str(file)), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, place: write_at(fd, data[:2], place))
    write(lines, 2, 3)
    lines.close()
    assert numbers_in(file) == [0, 1, 2, 3]


def test_what_a_failed_sync_has_dropped_is_written_again(file: Path, monkeypatch):
    """The kernel gives up the pages that it could not write, and calls the next sync a success."""
    lines = JsonLines(str(file))
    write(lines, 2)
    lines.flush()
    synced = file.stat().st_size
    write(lines, 3, 4)
    failures = fail_in_passing(monkeypatch, "fsync", 2, lambda _: os.truncate(file, synced), errno.EIO)
    lines.flush()
    assert len(failures) == 2 and numbers_in(file) == [0, 1, 2, 3, 4]
    write(lines, 5)
    lines.close()
    assert numbers_in(file) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["pwrite", "fsync"])
def test_a_stale_handle_stays_stale(file: Path, monkeypatch, name: str):
    lines, opened = JsonLines(str(file)), os.open
    write(lines, 2)
    failures = fail_in_passing(monkeypatch, name, float("inf"))

    def open_again(*arguments) -> int:
        monkeypatch.undo()
        retry_quickly(monkeypatch)
        return opened(*arguments)

    monkeypatch.setattr(os, "open", open_again)
    write(lines, 3)
    lines.flush()
    assert failures and numbers_in(file) == [0, 1, 2, 3]
    lines.close()


def test_the_file_of_whoever_took_over_is_left_alone(file: Path, monkeypatch):
    """A handle is stale where another machine has replaced the file."""
    lines, theirs = JsonLines(str(file)), '{"n": 0}\n{"n": "theirs"}\n{"n": "as well"}\n'

    def replaced(*_: object) -> None:
        (file.parent / "new").write_text(theirs)
        (file.parent / "new").rename(file)

    fail_in_passing(monkeypatch, "pwrite", 1, replaced)
    with pytest.raises(OSError, match=r"lines\.jsonl: was replaced while it was written"):
        write(lines, 2)
    assert file.read_text() == theirs


def test_a_full_disk_is_told_at_once_and_its_line_is_there_when_it_has_room(file: Path, monkeypatch):
    lines = JsonLines(str(file))
    failures = fail_in_passing(monkeypatch, "pwrite", 1, code=errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        write(lines, 2)
    write(lines, 3)
    lines.close()
    assert len(failures) == 1 and numbers_in(file) == [0, 1, 2, 3]


def test_what_is_kept_in_memory_is_bounded(file: Path, monkeypatch):
    monkeypatch.setattr(growing, "_MOST_UNSYNCED", 100)
    syncs, fsync = [], os.fsync
    lines = JsonLines(str(file))
    monkeypatch.setattr(os, "fsync", lambda fd: syncs.append(fd) or fsync(fd))
    write(lines, *range(2, 100))
    assert 5 < len(syncs) < 20
    lines.close()
    assert numbers_in(file) == list(range(100))


def test_what_is_closed_is_not_opened_again(file: Path):
    lines = JsonLines(str(file))
    lines.close()
    with pytest.raises(ValueError, match="was closed"):
        write(lines, 2)


def test_what_was_added_for_nobody_takes_no_place(tmp_path: Path):
    """On an object store the whole file is replaced: a new owner's must not be."""
    uri = f"memory://lines/{tmp_path.name}/lines.jsonl"
    lines = JsonLines(uri)
    write(lines, 1)
    publish_bytes(uri, b'{"n": 7}\n')
    lines.abandon()
    lines.close()
    assert read_bytes(uri) == b'{"n": 7}\n' and not lines.path.exists()
    with pytest.raises(ValueError, match="was closed"):
        write(lines, 2)
