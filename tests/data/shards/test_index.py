"""The index: every shard read once, again only when it has changed, and never believed beyond its damage."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from dalle2_train import storage
from dalle2_train.data.shards import index as indexing
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.shards.index import index, load_or_index, open_set
from dalle2_train.data.shards.locate import home_of
from dalle2_train.data.shards.manifest import ShardManifest, load
from dalle2_train.data.shards.read_shard import read_shard
from dalle2_train.data.shards.writer import Record, stage_shard
from dalle2_train.errors import InputError

MakeSet = Callable[..., str]


@pytest.fixture
def bare(make_set: MakeSet) -> str:
    """Tars alone: four shards of ten samples, and nothing that says so."""
    uri = make_set(40)
    for file in Path(uri).iterdir():
        if file.suffix != ".tar":
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    return uri


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The names of the shards that are read from now on."""
    names: list[str] = []

    def reading(local: Path, path: str, **options):
        names.append(Path(path).name)
        return read_shard(local, path, **options)

    monkeypatch.setattr(indexing, "read_shard", reading)
    return names


def rewritten(tar: Path, records: Iterator[Record]) -> None:
    """Another shard under the name of `tar`, as a rename brings it."""
    folder = tar.parent / "other"
    folder.mkdir()
    stage_shard(list(records), folder, int(tar.stem))
    (folder / tar.name).rename(tar)
    shutil.rmtree(folder)


def test_rows_are_what_webdataset_reads(bare: str, squares: SimpleNamespace):
    shards = open_set(bare)
    assert [shard.num_samples for shard in shards.manifest.shards] == [10] * 4
    for number, shard in enumerate(shards.manifest.shards):
        tar = Path(bare) / shard.name
        theirs = squares.read(tar)
        assert shards.index(number).keys == [sample["__key__"] for sample in theirs]
        data, rows = tar.read_bytes(), shards.index(number)
        for offset, length, crc32, sample in zip(
            rows.offsets, rows.lengths, rows.crc32s, theirs, strict=True
        ):
            span = data[offset : offset + length]
            assert zlib.crc32(span) == crc32
            with tarfile.open(fileobj=io.BytesIO(span)) as part:
                assert [part.extractfile(info).read() for info in part] == [  # type: ignore[union-attr]
                    value for name, value in sample.items() if not name.startswith("__")
                ]


def test_unchanged_shards_are_not_read_again(bare: str, reads: list[str]):
    first = index(bare)
    assert sorted(reads) == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]
    reads.clear()
    assert index(bare) == first == load(bare)
    assert reads == []


@pytest.mark.parametrize("change", ["longer", "same size", "new", "gone"])
def test_changed_shards_alone_are_read_again(
    bare: str, reads: list[str], squares: SimpleNamespace, change: str
):
    index(bare)
    reads.clear()
    tar = Path(bare) / "00002.tar"
    match change:
        case "longer":
            rewritten(tar, squares.records(12))
        case "same size":
            data = bytearray(tar.read_bytes())
            data[data.index(b"number 2")] ^= 32
            tar.write_bytes(data)
        case "new":
            shutil.copy(tar, Path(bare) / "00004.tar")
        case "gone":
            tar.unlink()
    manifest = index(bare)
    assert reads == {"new": ["00004.tar"], "gone": []}.get(change, ["00002.tar"])
    tars = sorted(Path(bare).glob("*.tar"))
    assert [shard.sha256 for shard in manifest.shards] == [storage.sha256_file(tar) for tar in tars]


def test_a_touched_shard_is_compared_by_digest(bare: str, reads: list[str]):
    index(bare)
    reads.clear()
    for tar in Path(bare).glob("*.tar"):
        os.utime(tar, (time.time() + 60,) * 2)
    index(bare)
    assert reads == []


def test_another_version_of_an_object_is_read_again(bare: str, reads: list[str], monkeypatch):
    version = "a"
    told = storage.stat

    def stat(uri: str) -> storage.Stat:
        return told(uri)._replace(version=version, modified=None) if uri.endswith(".tar") else told(uri)

    monkeypatch.setattr(storage, "stat", stat)
    index(bare)
    reads.clear()
    index(bare)
    assert reads == []
    version = "b"
    assert {shard.version for shard in index(bare).shards} == {"b"}
    assert len(reads) == 4


def test_a_damaged_shard_is_indexed_up_to_its_damage(bare: str, squares: SimpleNamespace):
    cut, flipped = Path(bare) / "00001.tar", Path(bare) / "00002.tar"
    os.truncate(cut, cut.stat().st_size // 2)
    shards = open_set(bare)
    place = int(shards.index(2).offsets[4])
    with flipped.open("r+b") as stream:
        stream.seek(place)
        stream.write(b"\xff" * 512)
    index(bare)
    shards = open_set(bare)
    assert [shard.problem for shard in shards.manifest.shards] == [None, "truncated", "broken_header", None]
    assert shards.index(2).keys == [sample["__key__"] for sample in squares.read(flipped)]
    assert len(shards.index(2)) == 4
    assert 0 < len(shards.index(1)) < 10


@pytest.mark.parametrize("promise", ["stats", "parquet"])
def test_what_was_promised_and_is_gone_is_counted(make_set: MakeSet, promise: str):
    uri = make_set(20)
    tar = Path(uri) / "00001.tar"
    os.truncate(tar, tar.stat().st_size // 2)
    if promise == "parquet":
        (Path(uri) / "00001_stats.json").unlink()
    shard = index(uri).shards[1]
    assert shard.num_expected == 10
    assert shard.num_lost == 10 - shard.num_samples > 0


def test_an_older_manifest_is_replaced(bare: str):
    old = {"version": 1, "source": {"kind": "emoji"}, "shards": [{"path": "00000.tar", "samples": []}]}
    (Path(bare) / "manifest.json").write_text(json.dumps(old))
    manifest = load_or_index(bare)
    assert manifest.num_samples == 40
    assert manifest.source == {"kind": "emoji"}
    assert load(bare) == manifest


def test_a_newer_manifest_is_left_alone(bare: str):
    (Path(bare) / "manifest.json").write_text(json.dumps({"version": 99}))
    for run in (load_or_index, index):
        with pytest.raises(InputError, match="update it"):
            run(bare)


def test_what_a_killed_process_was_writing_is_swept_and_what_another_writes_is_not(bare: str):
    """A publication takes its name from its file's; none lasts ten minutes."""
    (Path(bare) / "index").mkdir()
    left = [Path(bare) / name for name in (".partial-0-manifest.json", "index/.partial-1-00000.parquet")]
    young = Path(bare) / "index" / ".partial-2-00000.parquet"
    for file in (*left, young):
        file.write_bytes(b"half")
    for file in left:
        os.utime(file, (time.time() - 700,) * 2)
    os.utime(young, (time.time() - 300,) * 2)
    index(bare)
    assert list(Path(bare).rglob(".partial-*")) == [young]
    assert len(list(Path(bare).rglob("*.tar"))) == 4


def test_what_may_not_be_swept_is_told_and_stays(bare: str, monkeypatch, caplog):
    def refuse(uri: str, min_age_seconds: float) -> None:
        raise storage.RefusedAccessError(f"{uri}/.partial-0: access is refused")

    monkeypatch.setattr(storage, "sweep", refuse)
    assert index(bare) == load(bare)
    assert ".partial-0: access is refused" in caplog.text


def test_a_damaged_index_is_made_anew(bare: str, reads: list[str]):
    index(bare)
    reads.clear()
    damaged = next((Path(bare) / "index").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(InputError, match="shards index"):
        [open_set(bare).index(number) for number in range(4)]
    index(bare)
    assert len(reads) == 1
    assert [len(open_set(bare).index(number)) for number in range(4)] == [10] * 4


class TestElsewhere:
    """Manifests that cannot lie beside their shards."""

    def test_the_folder_is_the_data(self, bare: str, tmp_path: Path):
        to = str(tmp_path / "known")
        manifest = index(bare, to)
        assert not (Path(bare) / "manifest.json").exists()
        assert load_or_index(to) == manifest
        shards = open_set(to)
        assert [shards.uri(number) for number in range(4)] == sorted(map(str, Path(bare).glob("*.tar")))

    def test_it_is_refreshed_by_its_own_name(self, bare: str, reads: list[str], tmp_path: Path):
        to = str(tmp_path / "known")
        index(bare, to)
        shutil.copy(Path(bare) / "00002.tar", Path(bare) / "00004.tar")
        with pytest.raises(InputError, match=r"00004\.tar is new"):
            check_fresh(to)
        reads.clear()
        assert len(index(to).shards) == 5
        assert reads == ["00004.tar"]
        assert index(bare, to) == load(to)
        check_fresh(to)

    def test_other_shards_do_not_take_its_place(self, bare: str, make_set: MakeSet, tmp_path: Path):
        to, other = str(tmp_path / "known"), make_set(10, name="other")
        index(bare, to)
        for shards, home in ((other, to), (bare, other)):
            with pytest.raises(InputError, match="holds the manifest of other shards"):
                index(shards, home)

    def test_a_home_that_cannot_be_written_is_told_with_the_remedy(self, bare: str, reads: list[str]):
        pattern = f"{bare}/0000{{0..3}}.tar"
        Path(home_of(pattern)).write_text("in the way")
        with pytest.raises(InputError, match=r"shards index .*0000\{0\.\.3\}\.tar --to FOLDER"):
            load_or_index(pattern)
        assert reads == []


class TestFresh:
    """A look at the listing before a training."""

    def test_what_is_as_it_was_passes(self, make_set: MakeSet):
        check_fresh(make_set(20))

    @pytest.mark.parametrize("change", ["cut", "gone", "new"])
    @pytest.mark.parametrize("pattern", ["", "/*.tar"])
    def test_what_is_not_is_told_by_name(self, bare: str, change: str, pattern: str):
        uri = bare + pattern
        index(uri)
        check_fresh(uri)
        tar = Path(bare) / "00002.tar"
        match change:
            case "cut":
                told = f"has 1024 bytes, not {tar.stat().st_size}"
                os.truncate(tar, 1024)
            case "gone":
                told = "is missing"
                tar.unlink()
            case "new":
                told, tar = "is new", Path(bare) / "00004.tar"
                tar.write_bytes(b"")
        with pytest.raises(InputError, match=rf"/{tar.name} {told}: the manifest in .*shards index"):
            check_fresh(uri)
        index(uri)
        check_fresh(uri)

    def test_a_set_in_memory_is_listed_by_its_names(self, bare: str):
        uri = f"memory://{Path(bare).parent.name}"
        for tar in Path(bare).glob("*.tar"):
            storage.publish_file(tar, f"{uri}/{tar.name}")
        assert [shard.path for shard in index(uri).shards] == [f"0000{number}.tar" for number in range(4)]
        check_fresh(uri)

    def test_another_version_is_told(self, bare: str, monkeypatch):
        pattern = f"{bare}/*.tar"
        versions = dict.fromkeys(sorted(map(str, Path(bare).glob("*.tar"))), "then")
        told = storage.stat
        monkeypatch.setattr(storage, "stat", lambda uri: told(uri)._replace(version=versions.get(uri)))
        monkeypatch.setattr(storage, "stats", lambda uris: {uri: storage.stat(uri) for uri in uris})
        index(pattern)
        check_fresh(pattern)
        versions[f"{bare}/00001.tar"] = "now"
        with pytest.raises(InputError, match=r"/00001\.tar is another version: the manifest"):
            check_fresh(pattern)


def test_a_shard_that_a_pattern_names_and_that_is_not_there_is_a_fault(bare: str):
    (Path(bare) / "00001.tar").unlink()
    pattern = f"{bare}/0000{{0..3}}.tar"
    manifest = index(pattern)
    assert [(shard.num_samples, shard.problem) for shard in manifest.shards] == [
        (10, None),
        (0, "missing"),
        (10, None),
        (10, None),
    ]
    check_fresh(pattern)
    shutil.copy(Path(bare) / "00000.tar", Path(bare) / "00001.tar")
    with pytest.raises(InputError, match=r"00001\.tar"):
        check_fresh(pattern)
    assert index(pattern).num_samples == 40
    with pytest.raises(InputError, match="none of its 2 shards"):
        index(f"{bare}/0001{{0..1}}.tar")


def test_a_large_sample_is_not_read_as_a_whole(tmp_path: Path):
    size = 64 << 20
    tar = tmp_path / "large.tar"
    with tarfile.open(tar, "w") as archive:
        info = tarfile.TarInfo("a.mp4")
        info.size = size
        archive.addfile(info, io.BytesIO(bytes(size)))
    tracemalloc.start()
    _, rows = read_shard(tar, tar.name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size // 4
    assert rows.crc32s[0] == zlib.crc32(tar.read_bytes()[: 512 + size])


@pytest.mark.system
def test_many_shards_are_read_by_many_processes(make_set: MakeSet, tmp_path: Path):
    uri = make_set(80, 2)
    alone = index(f"{uri}/*.tar", str(tmp_path / "alone"), map_shards=map)
    spread = index(f"{uri}/*.tar", str(tmp_path / "spread"))
    assert spread == alone
    assert len(alone.shards) == 40


KILLED = """
import sys
from dalle2_train.data.shards import index as indexing

def slowly(work, tasks):
    for task in tasks:
        yield work(task)
        print("one", flush=True)
        input()

indexing.index(sys.argv[1], map_shards=slowly)
"""


@pytest.mark.system
def test_what_a_killed_run_has_read_is_not_read_again(bare: str, reads: list[str], tmp_path: Path):
    copy = shutil.copytree(bare, tmp_path / "copy")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, bare], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin, process.stdout:
        assert process.stdout.readline()
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (Path(bare) / "manifest.json").exists()
    done: ShardManifest = index(bare)
    assert reads == ["00002.tar", "00003.tar"]
    assert done == index(str(copy))
