"""Storage: what is published is whole, what is missing is told, on a local and on a remote-like file system."""

import hashlib
import os
import uuid
from pathlib import Path

import pytest

from dalle2_train import storage
from dalle2_train.errors import InputError


@pytest.fixture(params=["plain", "file:", "file://", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    scheme = "" if request.param == "plain" else request.param
    return f"{scheme}{tmp_path / 'base'}"


def test_published_is_read_back(base: str, tmp_path: Path):
    uri = storage.join(base, "a", "b.json")
    assert storage.publish_json(uri, {"x": 0.1}) == hashlib.sha256(storage.read_bytes(uri)).hexdigest()
    assert storage.read_json(uri) == {"x": 0.1}
    assert storage.size(uri) == len(storage.read_bytes(uri))
    assert storage.read_bytes(uri, 2, 3) == storage.read_bytes(uri)[2:5]
    assert [storage.read_json(found) for found in storage.list_files(base, ".json")] == [{"x": 0.1}]
    storage.download_tree(base, tmp_path / "copy")
    assert storage.read_json(str(tmp_path / "copy" / "a" / "b.json")) == {"x": 0.1}
    storage.remove(uri)
    assert not storage.exists(uri)
    assert storage.list_files(base) == storage.list_files(storage.join(base, "nowhere")) == []


def test_publish_file_returns_the_digest(base: str, tmp_path: Path):
    local = tmp_path / "source.bin"
    local.write_bytes(os.urandom(3_000_000))
    uri = storage.join(base, "x", "y.bin")
    assert storage.publish_file(local, uri) == hashlib.sha256(local.read_bytes()).hexdigest()
    assert storage.sha256_file(uri) == storage.sha256_file(local)
    with storage.as_local(uri) as copy:
        assert copy.read_bytes() == local.read_bytes()


def test_missing_is_told_by_name(base: str, tmp_path: Path):
    uri = storage.join(base, "nothing.json")
    for read in (storage.read_bytes, storage.read_json, storage.size, storage.sha256_file):
        with pytest.raises(InputError, match=r"nothing\.json"):
            read(uri)
    with pytest.raises(InputError, match=r"nothing\.json"):
        storage.download(uri, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_damaged_json_is_told(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(InputError, match=r"a\.json"):
        storage.read_json(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    "uri",
    ["simplecache::https://u:hunter2@h/x", "ssh://u:hunter2@h/x", "https://u:hunter2@h/x?sig=hunter2"],
)
def test_what_cannot_be_listed_is_told_without_its_password(uri: str):
    with pytest.raises(InputError) as told:
        storage.list_files(uri)
    assert "://***@h/x" in str(told.value) and "hunter2" not in str(told.value)


def test_a_failed_publish_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    uri = str(tmp_path / "a.json")
    storage.publish_json(uri, 1)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.publish_json(uri, 2)
    assert storage.read_json(uri) == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_half_written_files_are_not_listed(tmp_path: Path):
    (tmp_path / ".partial-1-00000.tar").write_bytes(b"half")
    (tmp_path / ".partial-2").mkdir()
    (tmp_path / ".partial-2" / "00000.tar").write_bytes(b"staged")
    (tmp_path / "00000.tar").write_bytes(b"whole")
    whole = [str(tmp_path / "00000.tar")]
    assert storage.list_files(str(tmp_path)) == list(storage.list_folder(str(tmp_path))) == whole
    assert storage.glob(f"{tmp_path}/*.tar") == storage.glob(f"{tmp_path}/**/*.tar") == whole


def test_links_are_files(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"hello")
    for link, target in (("a.tar", "real/a"), ("b.tar", "nowhere"), ("folder.tar", "real")):
        (tmp_path / link).symlink_to(target)
    found = storage.list_folder(str(tmp_path), ".tar")
    assert {Path(uri).name: stat.size for uri, stat in found.items()} == {"a.tar": 5, "b.tar": 0}
    assert storage.stat(str(tmp_path / "a.tar")).size == 5


@pytest.mark.parametrize("together", [True, False])
def test_many_are_looked_at_at_once(base: str, together: bool):
    files = {
        storage.join(base, "x" if together else name, f"{name}.tar"): len(name) for name in ("a", "bb", "c")
    }
    for uri in files:
        storage.publish_bytes(uri, bytes(files[uri]))
    missing = storage.join(base, "x", "none.tar")
    found = storage.stats([*files, missing])
    assert {uri: stat and stat.size for uri, stat in found.items()} == {**files, missing: None}
    assert storage.list_folder(storage.join(base, "nowhere")) == {}
    tars = [uri for uri in files if uri.endswith("c.tar")]
    assert storage.glob(storage.join(base, "*", "[cd].tar")) == list(map(storage.absolute, tars))


def test_writable(base: str, tmp_path: Path):
    storage.check_writable(base)
    assert storage.list_files(base) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        storage.check_writable(str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    "uri",
    [
        "pipe:cat x",
        "ssh://host/x",
        "sftp://host/x",
        "github://a:b@main/x",
        "simplecache::s3://bucket/key",
        "zip://a.tar::/tmp/x.zip",
        "simplecache:///tmp/x",
        "reference://x",
        "local+file:x",
        "data:text/plain,x",
        "S3://bucket/key",
        "",
        "nosuch://x",
    ],
)
def test_uris_that_are_no_place_are_refused(uri: str):
    with pytest.raises(InputError) as refused:
        storage.exists(uri)
    assert not uri or "s3:" in str(refused.value), "the message says what is allowed"


@pytest.mark.parametrize(
    "uri", ["s3://b/k", "s3a://b/k", "gs://b/k", "gcs://b/k", "az://c/k", "abfs://c/k", "abfss://c/k", "hdfs://h/k",
            "http://h/k", "https://h/k", "memory://k"]
)  # fmt: skip
def test_places_are_allowed(uri: str):
    assert storage.absolute(uri) == uri
    assert storage.local_path(uri) is None


def test_plain_paths_become_absolute(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b") == str(tmp_path / "b")
    assert storage.absolute("file:a") == str(tmp_path / "a")
    assert storage.absolute("./pipe:a") == str(tmp_path / "pipe:a")
    assert storage.local_path("./pipe:a") == tmp_path / "pipe:a"
    assert storage.local_path("s3://bucket/key") is None
    assert storage.absolute("s3://bucket/key/") == "s3://bucket/key"


def test_json_without_end_is_not_json(tmp_path):
    (tmp_path / "deep.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(InputError, match="not JSON"):
        storage.read_json(str(tmp_path / "deep.json"))
