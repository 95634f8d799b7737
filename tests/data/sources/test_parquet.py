"""Lists of addresses: the call of img2dataset that we make, by a stand-in that records it, and the real thing."""

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from servers import running

from dalle2_train.cli import main
from dalle2_train.data.check.doctor import check
from dalle2_train.data.shards.manifest import load
from dalle2_train.data.shards.writer import begin, stage_shard
from dalle2_train.data.sources import img2dataset
from dalle2_train.data.sources.ingest import check_ingest, ingest
from dalle2_train.data.sources.parquet import open_list
from dalle2_train.errors import InputError, RefusedError

NUM_ROWS = 5
STAND_IN = """#!{python}
import ast, json, os, pathlib, shutil, sys, time
call = {{"arguments": sys.argv[1:], "environment": dict(os.environ), "pid": os.getpid()}}
pathlib.Path({record!r}).write_text(json.dumps(call))
values = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
to = pathlib.Path(ast.literal_eval(values["output_folder"]))
for stats in to.glob("*.json"):
    int(stats.name.split("_")[0])  # as img2dataset does, which stumbles over every other name
{work}
"""
COPY = "shutil.copytree({prepared!r}, to, dirs_exist_ok=True)"


@pytest.fixture
def url_list(tmp_path: Path) -> Path:
    table = {
        "URL": [f"http://127.0.0.1/{i}.png" for i in range(NUM_ROWS)],
        "TEXT": [f"number {i}" for i in range(NUM_ROWS)],
        "similarity": [0.3] * NUM_ROWS,
        "NSFW": ["UNLIKELY"] * NUM_ROWS,
        "width": [1] * NUM_ROWS,
    }
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    return tmp_path / "list.parquet"


@pytest.fixture
def prepared(tmp_path: Path, squares: SimpleNamespace) -> Path:
    """What img2dataset would write: three pictures of five addresses."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    stage_shard(list(squares.records(3)), folder, 0)
    shutil.rmtree(folder / "index")
    statuses = {"success": 3, "HTTP Error 404: Not Found": 2}
    stats = {
        "count": 5,
        "successes": 3,
        "failed_to_download": 2,
        "failed_to_resize": 0,
        "status_dict": statuses,
    }
    (folder / "00000_stats.json").write_text(json.dumps(stats))
    return folder


@pytest.fixture
def stand_in(tmp_path: Path, prepared: Path, monkeypatch) -> Callable[..., Path]:
    """stand_in(work) puts a program called img2dataset on the PATH; returns the file with what it was called with."""

    def make(work: str = COPY) -> Path:
        folder, record = tmp_path / "bin", tmp_path / "call.json"
        folder.mkdir(exist_ok=True)
        program = folder / "img2dataset"
        text = work.format(prepared=str(prepared))
        program.write_text(STAND_IN.format(python=sys.executable, record=str(record), work=text))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("IMG2DATASET", raising=False)
        return record

    return make


def test_the_call_that_we_make_and_what_it_becomes(url_list: Path, tmp_path: Path, stand_in, monkeypatch):
    record = stand_in()
    monkeypatch.setenv("PYTHONPATH", "/ours")
    to, told = tmp_path / "shards $(touch x);", []
    result = ingest(f"parquet:{url_list}", str(to), image_size=64, progress=lambda *done: told.append(done))
    call = json.loads(record.read_text())
    # Fire, which reads the arguments, takes quoted texts for texts and brackets for lists.
    assert set(call["arguments"]) >= {
        f'--url_list="{url_list}"',
        f'--output_folder="{to}"',
        '--input_format="parquet"',
        '--output_format="webdataset"',
        '--url_col="URL"',
        '--caption_col="TEXT"',
        '--save_additional_columns=["similarity", "NSFW"]',
        "--image_size=64",
        '--resize_mode="keep_ratio"',
        '--compute_hash="sha256"',
        '--incremental_mode="incremental"',
        "--enable_wandb=False",
    }
    assert "PYTHONPATH" not in call["environment"]
    assert (result.num_samples, result.num_shards, result.skipped) == (3, 1, False)
    assert result.statuses == {"success": 3, "HTTP Error 404: Not Found": 2}
    assert told[-1] == (5, 5)
    assert check(str(to)).faults == ()
    assert not (to / "_ingest").exists()
    record.unlink()
    assert ingest(f"parquet:{url_list}", str(to), image_size=64).skipped
    assert not record.exists(), "what is whole is not fetched again"


def test_columns_that_img2dataset_writes_itself_are_named(url_list: Path, caplog: pytest.LogCaptureFixture):
    assert open_list(str(url_list)).others == ("similarity", "NSFW")
    assert "width" in caplog.text


def test_another_list_or_size_is_another_source(url_list: Path, tmp_path: Path, stand_in):
    stand_in()
    to = str(tmp_path / "shards")
    ingest(f"parquet:{url_list}", to)
    with pytest.raises(InputError, match=r"another source: parquet \(.*image_size 256.*image_size 64"):
        ingest(f"parquet:{url_list}", to, image_size=64)


@pytest.mark.parametrize("work", ["sys.exit('no disk')", "print('no disk')", "os.kill(os.getpid(), 9)"])
def test_a_failure_is_told_and_the_next_run_goes_on(url_list: Path, tmp_path: Path, stand_in, work: str):
    to = tmp_path / "shards"
    stand_in(work)
    with pytest.raises(InputError, match="after 0 of 5 addresses; run the same command again") as error:
        ingest(f"parquet:{url_list}", str(to))
    assert ("no disk" in str(error.value)) == ("no disk" in work)
    assert not (to / "manifest.json").exists()
    stand_in()
    assert ingest(f"parquet:{url_list}", str(to)).num_samples == 3


def test_no_picture_at_all_is_refused(url_list: Path, tmp_path: Path, stand_in):
    stand_in(
        "to.mkdir(exist_ok=True)\n"
        "(to / '00000_stats.json').write_text(json.dumps({{'count': 5, 'successes': 0, "
        "'status_dict': {{'<urlopen error no route>': 5}}}}))"
    )
    with pytest.raises(RefusedError, match=r"none of the 5 addresses .*no route"):
        ingest(f"parquet:{url_list}", str(tmp_path / "shards"))


def test_an_interruption_ends_it_with_all_its_children(url_list: Path, tmp_path: Path, stand_in):
    record = stand_in("import subprocess; subprocess.Popen(['sleep', '60']); time.sleep(60)")

    def interrupt(signum, frame) -> None:
        raise KeyboardInterrupt

    def ready() -> None:
        while not record.exists():
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=ready)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            ingest(f"parquet:{url_list}", str(tmp_path / "shards"))
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    group = json.loads(record.read_text())["pid"]
    left = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False
    )
    assert [state for state in left.stdout.split() if not state.startswith("Z")] == []


def test_without_img2dataset_it_is_said_how_to_get_it(url_list: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("IMG2DATASET", raising=False)
    arguments = ["shards", "ingest", f"parquet:{url_list}", "--to", str(tmp_path / "shards")]
    for dry_run in ([], ["--dry-run"]):
        assert main([*arguments, *dry_run]) == 2
        assert "pip install img2dataset" in capsys.readouterr().err
    monkeypatch.setenv("IMG2DATASET", str(tmp_path / "nowhere"))
    assert main(arguments) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()


def test_a_dry_run_looks_and_writes_nothing(url_list: Path, tmp_path: Path, stand_in):
    record = stand_in()
    assert not check_ingest(f"parquet:{url_list}", str(tmp_path / "shards"))
    assert not record.exists() and not (tmp_path / "shards").exists()
    ingest(f"parquet:{url_list}", str(tmp_path / "shards"))
    assert check_ingest(f"parquet:{url_list}", str(tmp_path / "shards"))


def test_what_is_no_list_is_told(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"no")
    pq.write_table(pa.table({"link": ["x"]}), tmp_path / "other.parquet")
    for name in ("empty", "broken.parquet", "other.parquet", "missing.parquet"):
        with pytest.raises(InputError, match=name):
            open_list(str(tmp_path / name))


# The real one, against a server on this machine.


class Pictures(BaseHTTPRequestHandler):
    """/N.png is a picture; /missing/… is not there, /text/… is a text, /slow/… comes late, /cut/… ends too soon."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        kind = self.path.split("/")[1]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "slow":
            time.sleep(1.5)
        stream = io.BytesIO()
        Image.new("RGB", (300, 150), (200, 30, 90)).save(stream, "PNG")
        data = b"hello" if kind == "text" else stream.getvalue()
        self.send_response(200)
        if kind == "noai":
            self.send_header("X-Robots-Tag", "noai")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if kind == "cut" else data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Pictures.asked.clear()
    with running(Pictures) as url:
        yield url


@pytest.mark.system
def test_the_real_img2dataset(server: str, tmp_path: Path, squares: SimpleNamespace):
    try:
        img2dataset.find_program()
    except InputError as error:
        pytest.skip(str(error))
    paths = [f"{i}.png" for i in range(20)] + [
        "missing/a.png",
        "text/a.png",
        "slow/a.png",
        "cut/a.png",
        "noai/a.png",
    ]
    table = {
        "URL": [f"{server}/{path}" for path in paths],
        "TEXT": [f"a picture called {path}" for path in paths],
        "similarity": [i / 100 for i in range(len(paths))],
        "NSFW": ["UNSURE" if i % 2 else "UNLIKELY" for i in range(len(paths))],
    }
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    to = tmp_path / "shards"
    result = ingest(f"parquet:{tmp_path / 'list.parquet'}", str(to), image_size=64)
    assert result.num_samples == result.statuses["success"] == 21
    assert sum(result.statuses.values()) == len(paths)
    assert any("404" in status for status in result.statuses) and any(
        "Robots" in status for status in result.statuses
    )
    assert check(str(to)).faults == ()
    samples = squares.read(to / "00000.tar")
    wanted = {f"a picture called {path}" for path in [*paths[:20], "slow/a.png"]}
    assert {sample["txt"].decode() for sample in samples} == wanted
    for sample in samples:
        record = json.loads(sample["json"])
        assert Image.open(io.BytesIO(sample["jpg"])).size == (128, 64)
        assert (record["original_width"], record["original_height"]) == (300, 150)
        row = table["URL"].index(record["url"])
        assert (record["similarity"], record["NSFW"]) == (table["similarity"][row], table["NSFW"][row])
    before = Pictures.asked.total()
    assert ingest(f"parquet:{tmp_path / 'list.parquet'}", str(to), image_size=64).skipped
    assert Pictures.asked.total() == before
    begin(str(to), load(str(to)).source)  # as if it had been killed before the manifest was written
    (to / "manifest.json").unlink()
    assert ingest(f"parquet:{tmp_path / 'list.parquet'}", str(to), image_size=64).num_samples == 21
    assert Pictures.asked.total() == before, "shards that are whole are not fetched again"
