"""A script in a process of its own: how it fails is told, and it does not take for ever."""

from pathlib import Path

import pytest

from dalle2_train.errors import RefusedError
from dalle2_train.export import afresh
from dalle2_train.export.afresh import run_afresh


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def script(tmp_path: Path, code: str) -> Path:
    file = tmp_path / "script.py"
    file.write_text(code)
    return file


def test_it_is_given_the_folder_and_the_files_in_their_order(folder: Path, tmp_path: Path):
    code = "import sys, pathlib; pathlib.Path(sys.argv[3]).write_text(' '.join(sys.argv[1:3]))"
    run_afresh(script(tmp_path, code), folder, tmp_path / "given", tmp_path / "found")
    assert (tmp_path / "found").read_text() == f"{folder} {tmp_path / 'given'}"


def test_its_last_line_is_told_when_it_fails(folder: Path, tmp_path: Path):
    failing = script(tmp_path, "raise SystemExit('a line\\nno such class')")
    with pytest.raises(RefusedError, match="cannot load or run the exported folder: no such class"):
        run_afresh(failing, folder)


def test_one_that_hangs_is_ended(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(afresh, "MINUTES", 0.005)
    with pytest.raises(RefusedError, match=r"did not finish with the exported folder within 0\.005 minutes"):
        run_afresh(script(tmp_path, "import time; time.sleep(600)"), folder)
