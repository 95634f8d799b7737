"""Shards on a web server: named by braces, read by ranges, their manifest elsewhere."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from numbered import same, tokenize
from servers import Faults, flaky_proxy, web_server

from dalle2_train import storage
from dalle2_train.cli import main
from dalle2_train.data.check.doctor import check
from dalle2_train.data.config import DataConfig
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.shards.index import index, load_or_index
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError
from dalle2_train.storage import retry

MakeSet = Callable[..., str]
CONFIG = DataConfig(image_size=8, num_lanes=4, block_size=5, cache_megabytes=0)


@pytest.fixture
def local(make_set: MakeSet) -> str:
    """Six shards in a folder."""
    return make_set(53)


@pytest.fixture
def web(local: str) -> Iterator[str]:
    """The folder's URL."""
    with web_server(Path(local)) as url:
        yield url


def batches(uri: str, steps: int) -> Iterator[Any]:
    stream = Stream(uri, CONFIG, seed=1, global_batch_size=8, batch_type=ClipBatch, tokenize=tokenize)
    return (batch for batch, _ in islice(stream, steps))


def test_from_index_to_batches(local: str, web: str, tmp_path: Path):
    to = str(tmp_path / "known")
    assert main(["shards", "index", f"{web}/{{00000..00005}}.tar", "--to", to]) == 0
    assert load_or_index(to).num_samples == 53
    assert [shard.sha256 for shard in load_or_index(to).shards] == [
        shard.sha256 for shard in load_or_index(local).shards
    ]
    check_fresh(to)
    assert check(to).faults == ()
    assert same(batches(to, 7), batches(local, 7))


@pytest.mark.parametrize("etags", [True, False])
def test_a_shard_that_is_replaced_is_noticed(local: str, tmp_path: Path, etags: bool):
    to = str(tmp_path / "known")
    with web_server(Path(local), etags=etags) as url:
        index(f"{url}/0000{{0..5}}.tar", to)
        tar = Path(local) / "00002.tar"
        data = bytearray(tar.read_bytes())
        data[data.index(b"number 2")] ^= 32
        tar.write_bytes(data)
        if etags:
            with pytest.raises(InputError, match=r"00002\.tar is another version"):
                check_fresh(to)
        assert index(to).shards[2].sha256 == storage.sha256_file(tar)
        tar.unlink()
        with pytest.raises(InputError, match=r"00002\.tar is missing"):
            check_fresh(to)


def test_there_is_no_home_and_no_listing(web: str):
    with pytest.raises(InputError, match=r"shards index .*\.tar --to FOLDER"):
        load_or_index(f"{web}/0000{{0..5}}.tar")
    for uri in (f"{web}/nowhere", f"{web}/*.tar", f"{web}/0000[0-5].tar"):
        with pytest.raises(InputError, match="does not list its files"):
            load_or_index(uri)


def test_a_folder_that_has_its_manifest_is_as_good(local: str, web: str):
    check_fresh(web)
    assert check(web).faults == ()
    assert same(batches(web, 7), batches(local, 7))
    (Path(local) / "00002.tar").unlink()
    with pytest.raises(InputError, match=r"00002\.tar is missing"):
        check_fresh(web)


def test_a_server_without_ranges_is_told(local: str):
    with web_server(Path(local), ranges=False) as url:
        assert storage.read_bytes(f"{url}/00000.tar") == (Path(local) / "00000.tar").read_bytes()
        with pytest.raises(InputError, match="range requests"):
            storage.read_bytes(f"{url}/00000.tar", 512, 512)


def test_reads_beyond_the_end_are_short(web: str, local: str):
    data = (Path(local) / "00000.tar").read_bytes()
    assert storage.read_bytes(f"{web}/00000.tar", len(data) - 5, 50) == data[-5:]
    assert storage.read_bytes(f"{web}/00000.tar", len(data) + 5, 50) == b""


def test_through_errors_resets_and_an_outage(local: str, web: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 0.2)
    faults, to = Faults(), str(tmp_path / "known")
    faults.errors = faults.resets = 0.1
    with flaky_proxy(web, faults) as url:
        assert index(f"{url}/0000{{0..5}}.tar", to).num_samples == 53
        ours = batches(to, 14)
        first = [next(ours) for _ in range(3)]
        faults.begin_outage(2)
        assert same([*first, *ours], batches(local, 14))
    assert all(count > 3 for count in faults.counts.values()), faults.counts


def test_an_outage_is_no_absence(web: str, monkeypatch):
    """A server that is down does not make a set one without manifest, or a shard a missing one."""
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.2)
    faults = Faults()
    with flaky_proxy(web, faults) as url:
        faults.begin_outage(60)
        for look in (storage.exists, storage.stat, storage.read_bytes, index):
            with pytest.raises(storage.UnreachableError):
                look(f"{url}/00000.tar")
