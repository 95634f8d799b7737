"""The cache of what is read: it saves reads, stays within its bound, and never makes a sample of other bytes."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from numbered import same, tokenize

from dalle2_train import storage
from dalle2_train.data.config import DataConfig
from dalle2_train.data.shards import cache as caching
from dalle2_train.data.shards.cache import PAGE, PageCache
from dalle2_train.data.shards.manifest import Shard
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError

MakeSet = Callable[..., str]
BYTES = os.urandom(5 * PAGE + 1000)
SHARD = Shard("00000.tar", len(BYTES), "digest", 1, {}, 1)


def read(start: int, length: int) -> bytes:
    return BYTES[start : start + length]


def unread(start: int, length: int) -> bytes:
    raise AssertionError(f"{length} bytes from {start} are read again")


def pages(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*/*") if file.is_file())


@pytest.fixture
def cache(tmp_path: Path) -> PageCache:
    (tmp_path / "cache").mkdir()
    return PageCache(tmp_path / "cache", 20 * PAGE)


@pytest.mark.parametrize(
    ("start", "length"),
    [(0, 10), (PAGE - 5, 10), (PAGE, PAGE), (3, 4 * PAGE), (5 * PAGE + 990, 10), (5 * PAGE + 990, 99), (0, len(BYTES))],
)  # fmt: skip
def test_any_range_is_what_lies_there(cache: PageCache, start: int, length: int):
    assert cache.read("s3://a", SHARD, start, length, read) == BYTES[start : start + length]
    assert cache.read("s3://a", SHARD, start, length, unread) == BYTES[start : start + length]


def test_neighbours_that_are_missing_are_one_read(cache: PageCache):
    cache.read("s3://a", SHARD, 2 * PAGE, 1, read)
    asked = []

    def noted(start: int, length: int) -> bytes:
        asked.append((start, length))
        return read(start, length)

    assert cache.read("s3://a", SHARD, 0, len(BYTES), noted) == BYTES
    assert asked == [(0, 2 * PAGE), (3 * PAGE, len(BYTES) - 3 * PAGE)]


def test_shards_of_one_name_do_not_collide(cache: PageCache):
    cache.read("s3://set/a/00000.tar", SHARD, 0, 10, read)
    other = bytes(len(BYTES))
    assert cache.read("s3://set/b/00000.tar", SHARD, 0, 10, lambda start, length: other[:length]) == bytes(10)
    changed = Shard("00000.tar", len(BYTES), "another digest", 1, {}, 1)
    assert cache.read("s3://set/a/00000.tar", changed, 0, 10, lambda start, length: other[:length]) == bytes(
        10
    )
    assert cache.read("s3://set/a/00000.tar", SHARD, 0, 10, unread) == BYTES[:10]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_page_costs_a_read(cache: PageCache, damage: str):
    cache.read("s3://a", SHARD, 0, len(BYTES), read)
    for file in pages(cache.folder):
        data = bytearray(file.read_bytes())
        match damage:
            case "flipped":
                data[1000] ^= 1
                file.write_bytes(data)
            case "cut":
                file.write_bytes(data[:-1])
            case "empty":
                file.write_bytes(b"")
            case "gone":
                file.unlink()
    assert cache.read("s3://a", SHARD, 0, len(BYTES), read) == BYTES
    assert cache.read("s3://a", SHARD, 0, len(BYTES), unread) == BYTES


def test_the_bound_holds_and_the_longest_unused_goes_first(tmp_path: Path, monkeypatch):
    cache = PageCache(tmp_path, 4 * PAGE + PAGE // 2)
    # Times of the file system are too coarse for what happens within milliseconds.
    clock = iter(range(1, 1000))
    utime = os.utime

    def ticking(file: Path) -> None:
        utime(file, (now := next(clock), now))

    monkeypatch.setattr(caching.os, "utime", ticking)
    for name in "abcdef":
        cache.read(f"s3://{name}", SHARD, 0, 10, read)
        cache.read(f"s3://{name}", SHARD, 0, 10, unread)
        cache.read("s3://a", SHARD, 0, 10, unread)  # always in use
        assert sum(file.stat().st_size for file in pages(tmp_path)) <= cache.num_bytes
    with pytest.raises(AssertionError, match="read again"):
        cache.read("s3://b", SHARD, 0, 10, unread)
    cache.read("s3://f", SHARD, 0, 10, unread)


def test_the_bound_holds_where_many_write_slowly(tmp_path: Path, monkeypatch):
    """An eviction counts what lies there: what others are about to write must not come on top of it."""
    cache, write_bytes = PageCache(tmp_path, 4 * PAGE), Path.write_bytes

    def slowly(self: Path, data: bytes) -> int:
        time.sleep(0.002)
        return write_bytes(self, data)

    monkeypatch.setattr(Path, "write_bytes", slowly)

    def look(number: int) -> int:
        cache.read(f"s3://{number}", SHARD, PAGE * (number % 5), 10, read)
        held = 0
        for file in pages(tmp_path):
            with suppress(FileNotFoundError):  # another thread evicts
                held += file.stat().st_size
        return held

    with ThreadPoolExecutor(8) as pool:
        assert 0 < max(pool.map(look, range(100))) <= cache.num_bytes


def test_what_a_killed_process_left_is_removed(tmp_path: Path):
    cache = PageCache(tmp_path, 2 * PAGE)
    (tmp_path / ".partial-page-abc").write_bytes(bytes(PAGE))
    asked = tmp_path / ".partial-probe-abc"  # another process looks whether it may write here
    asked.write_bytes(b"")
    for name in "abc":
        cache.read(f"s3://{name}", SHARD, 0, 10, read)
    assert list(tmp_path.glob(".partial-*")) == [asked]


def test_who_holds_the_lock_and_is_frozen_costs_the_others_the_cache_alone(cache: PageCache, caplog):
    cache.read("s3://a", SHARD, 0, 10, read)
    with (cache.folder / "bytes").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert cache.read("s3://b", SHARD, 0, 10, read) == BYTES[:10]
    assert "not all is kept" in caplog.text
    cache.read("s3://b", SHARD, 0, 10, read)
    cache.read("s3://b", SHARD, 0, 10, unread)


def test_what_is_larger_than_the_cache_is_read_all_the_same(tmp_path: Path):
    cache = PageCache(tmp_path, PAGE)
    assert cache.read("s3://a", SHARD, 0, len(BYTES), read) == BYTES
    assert pages(tmp_path) == []


@pytest.mark.parametrize("ledger", [None, "", "12x"])
def test_without_its_ledger_it_counts_anew(cache: PageCache, ledger: str | None):
    cache.read("s3://a", SHARD, 0, len(BYTES), read)
    file = cache.folder / "bytes"
    file.unlink() if ledger is None else file.write_text(ledger)
    cache.read("s3://b", SHARD, 0, len(BYTES), read)
    assert int(file.read_text()) == sum(page.stat().st_size for page in pages(cache.folder))


def test_a_full_disk_costs_the_cache_and_not_the_run(cache: PageCache, monkeypatch, caplog):
    def full(self: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(3):
        assert cache.read("s3://a", SHARD, 0, 10, read) == BYTES[:10]
    assert caplog.text.count("No space left") == 1


class TestStream:
    """Batches with and without it."""

    def batches(self, uri: str, **options: Any) -> Iterator[Any]:
        config = DataConfig(
            image_size=8, num_lanes=4, block_size=5, cache_megabytes=0, prefetch_batches=0, **options
        )
        stream = Stream(uri, config, seed=1, global_batch_size=8, batch_type=ClipBatch, tokenize=tokenize)
        return (batch for batch, _ in islice(stream, 20))

    def test_batches_are_the_same_and_every_byte_is_read_once(
        self, make_set: MakeSet, tmp_path: Path, monkeypatch
    ):
        uri, folder = make_set(80), str(tmp_path / "cache")
        plain, read_bytes, seen = list(self.batches(uri)), storage.read_bytes, []

        def counting(uri: str, start: int = 0, length: int | None = None) -> bytes:
            data = read_bytes(uri, start, length)
            seen.extend([uri] if uri.endswith(".tar") else [])
            return data

        monkeypatch.setattr(storage, "read_bytes", counting)
        assert same(self.batches(uri, cache_folder=folder, cache_gigabytes=1), plain)
        assert sorted(seen) == sorted(map(str, Path(uri).glob("*.tar")))
        seen.clear()
        assert same(self.batches(uri, cache_folder=folder, cache_gigabytes=1), plain)
        assert seen == []

    def test_a_page_of_other_bytes_makes_no_sample(self, make_set: MakeSet, tmp_path: Path):
        uri, folder = make_set(80), tmp_path / "cache"
        plain = list(self.batches(uri, cache_folder=str(folder), cache_gigabytes=1))
        first = pages(folder)[0].read_bytes()
        for file in pages(folder):  # whole by their own checksum
            file.write_bytes(first)
        assert same(self.batches(uri, cache_folder=str(folder), cache_gigabytes=1), plain)

    def test_half_a_setting_is_refused(self, tmp_path: Path):
        for options in ({"cache_folder": str(tmp_path)}, {"cache_gigabytes": 1}):
            with pytest.raises(InputError, match="set both, or neither"):
                DataConfig(**options)
        for folder in ("cache", "s3://bucket/cache"):
            with pytest.raises(InputError, match="absolute path"):
                DataConfig(cache_folder=folder, cache_gigabytes=1)


SHARING = """
import random, sys
from pathlib import Path
from dalle2_train.data.shards.cache import PAGE, PageCache
from dalle2_train.data.shards.manifest import Shard

cache, draws = PageCache(Path(sys.argv[1]), 8 * PAGE), random.Random(sys.argv[2])
data = [random.Random(name).randbytes(3 * PAGE) for name in range(4)]
for _ in range(200):
    name, start, length = draws.randrange(4), draws.randrange(3 * PAGE), draws.randrange(1, PAGE)
    shard = Shard("00000.tar", 3 * PAGE, "digest", 1, {}, 1)
    found = cache.read(f"s3://{name}", shard, start, length, lambda a, n, of=data[name]: of[a : a + n])
    assert found == data[name][start : min(start + length, 3 * PAGE)]
"""


@pytest.mark.system
def test_processes_share_it(tmp_path: Path):
    others = [
        subprocess.Popen([sys.executable, "-c", SHARING, str(tmp_path), str(seed)]) for seed in range(4)
    ]
    assert [other.wait() for other in others] == [0] * 4
    assert 0 < sum(file.stat().st_size for file in pages(tmp_path)) <= 8 * PAGE
    assert not list(tmp_path.glob(".partial-*"))
