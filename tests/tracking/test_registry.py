import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from mlflow import MlflowClient
from servers import running

from dalle2_train.errors import InputError
from dalle2_train.tracking import registry

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")


def test_a_version_records_where_what_and_how_good(tracking_uri: str, client: MlflowClient) -> None:
    metrics = {"judge.compositional.r10": 0.1 + 0.2, "judge.compositional.kid": 1e-7}
    found = registry.register("unclip", "s3://bucket/model", "d" * 64, metrics, tracking_uri=tracking_uri)
    assert (found.version, found.uri, found.digest, found.metrics) == (
        1,
        "s3://bucket/model",
        "d" * 64,
        metrics,
    )
    theirs = client.get_model_version("unclip", "1")
    assert theirs.tags["digest"] == "d" * 64
    assert theirs.source == "s3://bucket/model"


def test_a_local_path_is_registered_absolute(
    tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry.register("unclip", "model", "d", {}, tracking_uri=tracking_uri)
    assert registry.resolve("models:/unclip/1", tracking_uri=tracking_uri) == str(tmp_path / "model")


def test_the_same_model_again_is_the_same_version(tracking_uri: str) -> None:
    for digest, value in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        found = registry.register("unclip", "/m", digest, {"r10": value}, tracking_uri=tracking_uri)
    assert (found.version, found.metrics) == (1, {"r10": 0.3})


def test_aliases_move(tracking_uri: str) -> None:
    for digest in "ab":
        registry.register("unclip", f"/m/{digest}", digest, {}, tracking_uri=tracking_uri)
    assert registry.by_alias("unclip", "champion", tracking_uri=tracking_uri) is None
    for version, uri in ((1, "/m/a"), (2, "/m/b")):
        registry.set_alias("unclip", "champion", version, tracking_uri=tracking_uri)
        assert registry.resolve("models:/unclip@champion", tracking_uri=tracking_uri) == uri
    assert registry.lookup("models:/unclip@champion", tracking_uri=tracking_uri).digest == "b"


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("models:/unclip@nobody", "no alias 'nobody'"),
        ("models:/nothing@champion", "no alias"),
        ("models:/unclip/9", "version=9"),
        ("models:/unclip", "models:/NAME@ALIAS"),
        ("/some/folder", "models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_the_users_error(tracking_uri: str, uri: str, match: str) -> None:
    registry.register("unclip", "/m", "a", {}, tracking_uri=tracking_uri)
    with pytest.raises(InputError, match=match):
        registry.resolve(uri, tracking_uri=tracking_uri)
    with pytest.raises(InputError):
        registry.set_alias("unclip", "champion", 9, tracking_uri=tracking_uri)


def test_a_strangers_version_says_so(tracking_uri: str, client: MlflowClient) -> None:
    client.create_registered_model("theirs")
    client.create_model_version("theirs", "s3://b/x", await_creation_for=0)
    with pytest.raises(InputError, match="not registered by dalle2-train"):
        registry.resolve("models:/theirs/1", tracking_uri=tracking_uri)


def test_the_audit_keeps_order_and_all(tracking_uri: str) -> None:
    registry.register("unclip", "/m", "a", {}, tracking_uri=tracking_uri)
    for i in range(5):
        registry.append_audit("unclip", {"i": i}, tracking_uri=tracking_uri)
    assert registry.read_audit("unclip", tracking_uri=tracking_uri) == [{"i": i} for i in range(5)]
    assert registry.read_audit("nothing", tracking_uri=tracking_uri) == []


def test_asking_makes_no_database(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "none.db"
    assert registry.by_alias("faces", "champion", tracking_uri=f"sqlite:///{file}") is None
    assert not file.parent.exists()


class Empty(BaseHTTPRequestHandler):
    """A registry that has nothing, and says of what."""

    def do_GET(self) -> None:
        told = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none at http://user:hunter2@host"}
        body = json.dumps(told).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_what_is_not_there_is_told_without_the_password() -> None:
    with running(Empty) as url, pytest.raises(InputError, match="check name and version") as told:
        registry.by_version("unclip", 3, tracking_uri=url.replace("://", "://user:hunter2@"))
    assert str(told.value).count("http://***@") == 2 and "hunter2" not in str(told.value)
