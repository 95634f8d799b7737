"""Shards in an object store, behind a proxy that fails: the same order, key by key, as from a folder."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from numbered import same, tokenize
from servers import Faults, flaky_proxy, object_store

from dalle2_train import storage
from dalle2_train.data.check.doctor import check
from dalle2_train.data.config import DataConfig
from dalle2_train.data.embed.embed import embed_shards
from dalle2_train.data.embed.encoding import EmbedConfig
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.shards.index import index, load_or_index
from dalle2_train.data.stream.batches import ClipBatch, PriorBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError
from dalle2_train.storage import retry
from dalle2_train.storage.places import open_fs

MakeSet = Callable[..., str]
pytestmark = pytest.mark.system
CONFIG = DataConfig(image_size=8, num_lanes=4, block_size=5, cache_megabytes=0)


@pytest.fixture(scope="module")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="module", autouse=True)
def endpoint(faults: Faults) -> Iterator[str]:
    """The proxy before the store; s3fs is told of it by the environment alone."""
    with object_store() as store, flaky_proxy(store, faults) as url:
        told = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        before = {name: os.environ.get(name) for name in told}
        os.environ.update(told)
        fs, _ = open_fs("s3://bucket")
        fs.mkdir("bucket")
        yield url
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(autouse=True)
def whole(faults: Faults) -> Iterator[None]:
    """Tests begin and end without faults."""
    yield
    faults.errors = faults.resets = faults.outage_ends = 0.0


@pytest.fixture
def quickly(monkeypatch) -> None:
    """Faults by the dozen need no pauses of seconds."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.02)


@pytest.fixture
def upload() -> Callable[..., str]:
    """upload(folder, only=suffixes) → its URI in the store."""

    def run(folder: str, only: tuple[str, ...] = ("",)) -> str:
        uri = storage.join("s3://bucket", uuid.uuid4().hex, Path(folder).name)
        for file in Path(folder).rglob("*"):
            if file.is_file() and file.name.endswith(only):
                storage.publish_file(file, storage.join(uri, str(file.relative_to(folder))))
        return uri

    return run


def epoch(
    uri: str, steps: int, batch_type: Any = ClipBatch, config: DataConfig = CONFIG, **options: Any
) -> list[Any]:
    """The batches of `steps` steps."""
    stream = Stream(
        uri, config, seed=1, global_batch_size=8, batch_type=batch_type, tokenize=tokenize, **options
    )
    with closing(stream):
        return [batch for batch, _ in islice(stream, steps)]


@pytest.mark.parametrize("source", ["", "/{00000..00005}.tar", "/*.tar", "/0000[0-5].tar"])
def test_from_index_to_batches(make_set: MakeSet, upload: Callable[..., str], source: str):
    local = make_set(53)
    uri = upload(local, (".tar", "_stats.json")) + source
    manifest = index(uri)
    assert manifest.num_samples == 53
    assert [shard.sha256 for shard in manifest.shards] == [
        shard.sha256 for shard in load_or_index(local).shards
    ]
    assert all(shard.version for shard in manifest.shards)
    check_fresh(uri)
    assert check(uri).faults == ()
    assert same(epoch(uri, 7), epoch(local, 7))


def test_embedded_shards(
    make_set: MakeSet, upload: Callable[..., str], squares: SimpleNamespace, tmp_path: Path
):
    local = make_set(53)
    config = EmbedConfig("f", image_size=8, dtype="fp32", batch_size=4, text_encodings=True)
    uri = upload(local)
    for source, to in ((local, str(tmp_path / "embedded")), (uri, f"{uri}-embedded")):
        embed_shards(source, to, squares.encode, config, clip_uri="clip")
    theirs = epoch(local, 7, PriorBatch, embeddings=str(tmp_path / "embedded"))
    assert same(epoch(uri, 7, PriorBatch, embeddings=f"{uri}-embedded"), theirs)


def test_a_shard_that_is_replaced_is_noticed(make_set: MakeSet, upload: Callable[..., str]):
    uri = upload(make_set(40))
    index(uri)
    data = bytearray(storage.read_bytes(f"{uri}/00002.tar"))
    data[data.index(b"number 2")] ^= 32
    storage.publish_bytes(f"{uri}/00002.tar", bytes(data))
    with pytest.raises(InputError, match=r"00002\.tar is another version"):
        check_fresh(uri)
    index(uri)
    check_fresh(uri)


def test_a_look_is_one_request(make_set: MakeSet, upload: Callable[..., str], faults: Faults):
    uri = upload(make_set(40, 1))
    index(uri, map_shards=map)
    before = faults.counts["requests"]
    check_fresh(uri)
    assert faults.counts["requests"] - before < 10


def test_what_another_process_publishes_is_seen(upload: Callable[..., str], endpoint: str, tmp_path: Path):
    """Listings kept by s3fs would hide it."""
    import boto3

    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tar").write_bytes(b"x")
    uri = upload(str(tmp_path / "set"))
    assert len(storage.list_files(uri)) == len(storage.list_folder(uri)) == 1
    prefix = uri.removeprefix("s3://bucket/")
    boto3.client("s3").put_object(Bucket="bucket", Key=f"{prefix}/b.tar", Body=b"yy")
    assert len(storage.list_files(uri)) == len(storage.list_folder(uri)) == 2
    assert len(storage.glob(f"{uri}/*.tar")) == 2
    assert storage.size(f"{uri}/b.tar") == 2
    assert not storage.exists(f"{uri}/c.tar")


@pytest.mark.usefixtures("quickly")
def test_an_epoch_through_errors_and_resets(make_set: MakeSet, upload: Callable[..., str], faults: Faults):
    local = make_set(80)
    uri = upload(local, (".tar", "_stats.json"))
    counts = dict(faults.counts)
    faults.errors = faults.resets = 0.1
    assert index(uri, map_shards=map).num_samples == 80
    assert check(uri).faults == ()
    assert same(epoch(uri, 10), epoch(local, 10))
    assert same(epoch(uri, 10, config=replace(CONFIG, num_workers=2)), epoch(local, 10))
    assert faults.counts["errors"] - counts["errors"] > 10
    assert faults.counts["resets"] - counts["resets"] > 10


@pytest.mark.usefixtures("quickly")
def test_uploads_through_errors_and_resets_are_whole(faults: Faults, tmp_path: Path):
    faults.errors = faults.resets = 0.1
    for number in range(30):
        data = os.urandom(200_000)
        storage.publish_bytes(f"s3://bucket/whole/{number}", data)
        assert storage.read_bytes(f"s3://bucket/whole/{number}") == data
    large = tmp_path / "large"
    large.write_bytes(os.urandom(110 << 20))  # more than one part
    digest = storage.publish_file(large, "s3://bucket/whole/large")
    assert storage.sha256_file("s3://bucket/whole/large") == digest == storage.sha256_file(large)


@pytest.mark.usefixtures("quickly")
def test_an_upload_whose_end_was_not_heard_is_made_again(faults: Faults, tmp_path: Path):
    large = tmp_path / "large"
    large.write_bytes(os.urandom(110 << 20))
    resets, errors = faults.counts["resets"], faults.counts["errors"]
    # Begun, three parts, and ended: the answer to this is lost, and what asks for it again is refused.
    faults.plan({5: "resets", 6: "errors"})
    digest = storage.publish_file(large, "s3://bucket/unheard")
    assert (faults.counts["resets"] - resets, faults.counts["errors"] - errors) == (1, 1)
    assert storage.sha256_file("s3://bucket/unheard") == digest


def test_an_upload_that_is_cut_off_leaves_the_old_object(faults: Faults, monkeypatch, tmp_path: Path):
    large = tmp_path / "large"
    large.write_bytes(bytes(110 << 20))
    storage.publish_bytes("s3://bucket/cut", b"old")
    monkeypatch.setattr(retry, "RETRY_SECONDS", 1.0)
    # After the upload has begun, and before its last part has come.
    faults.outage_after(2, 60)
    with pytest.raises(storage.UnreachableError):
        storage.publish_file(large, "s3://bucket/cut")
    faults.outage_ends = 0.0
    assert storage.read_bytes("s3://bucket/cut") == b"old"


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_an_outage_costs_nothing(
    make_set: MakeSet, upload: Callable[..., str], faults: Faults, seconds: int, caplog, monkeypatch
):
    local = make_set(80)
    uri = upload(local)
    # Lines are seldom, and the test before may have written one just now.
    monkeypatch.setattr(retry, "_last_line", -retry._SECONDS_BETWEEN_LINES)
    faults.errors = 0.1
    stream = iter(Stream(uri, CONFIG, seed=1, global_batch_size=8, batch_type=ClipBatch, tokenize=tokenize))
    found = [next(stream)[0] for _ in range(3)]
    refused = faults.counts["refused"]
    faults.begin_outage(seconds)
    found += [next(stream)[0] for _ in range(7)]
    assert faults.counts["refused"] > refused
    assert same(found, epoch(local, 10))
    lines = [record for record in caplog.records if "trying again" in record.message]
    assert 1 <= len(lines) <= 2 + seconds // 5


def test_an_outage_beyond_patience_fails_and_skips_nothing(
    make_set: MakeSet, upload: Callable[..., str], faults: Faults, monkeypatch
):
    uri = upload(make_set(80))
    stream = iter(Stream(uri, CONFIG, seed=1, global_batch_size=8, batch_type=ClipBatch, tokenize=tokenize))
    next(stream)
    monkeypatch.setattr(retry, "RETRY_SECONDS", 1.0)
    faults.begin_outage(60)
    with pytest.raises(storage.UnreachableError, match="s3://bucket"):
        list(islice(stream, 10))


def test_missing_buckets_are_told():
    with pytest.raises(storage.MissingError, match="s3://nowhere/a"):
        storage.read_bytes("s3://nowhere/a")
    with pytest.raises(InputError, match="holds no"):
        index("s3://bucket/nothing")


READ = "from dalle2_train import storage; print(storage.read_bytes('s3://bucket/profile').decode())"


def test_a_profile_is_enough(endpoint: str, tmp_path: Path):
    storage.publish_bytes("s3://bucket/profile", b"found")
    told = f"[profile mine]\nregion = eu-west-1\nendpoint_url = {endpoint}\n"
    told += "aws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "config").write_text(told)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**bare, "AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "mine"}
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "found\n", done.stderr


def test_credentials_that_are_not_there_are_told(endpoint: str, tmp_path: Path):
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment = {**bare, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-c", READ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "RefusedAccessError: s3://bucket/profile: access is refused" in done.stderr
