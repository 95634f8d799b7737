"""A server that is there and one that lets us in are two things."""

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from servers import running

from dalle2_train.errors import InputError
from dalle2_train.tracking.reach import check_reachable

RIGHT = "Basic " + base64.b64encode(b"somebody:right").decode()


class Guarded(BaseHTTPRequestHandler):
    """As MLflow with basic-auth: /health is anybody's, the rest is not."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        is_known = self.path == "/health" or self.headers.get("Authorization") == RIGHT
        body = b'{"experiments": []}' if is_known else b"You are not authenticated."
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json" if is_known else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with running(Guarded) as url:
        yield url


def test_who_has_the_password_gets_in(url, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "right")
    check_reachable(url)


def test_who_has_another_is_told(url, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(InputError, match=r"refuses us.*401.*MLFLOW_TRACKING_PASSWORD") as told:
        check_reachable(url)
    assert "wrong" not in str(told.value)


def test_the_password_may_stand_in_the_uri(url):
    check_reachable(url.replace("://", "://somebody:right@"))
    with pytest.raises(InputError, match="refuses us") as told:
        check_reachable(url.replace("://", "://somebody:wrong@"))
    assert "wrong" not in str(told.value)


def test_where_nobody_answers_is_found_out_at_once(url):
    with pytest.raises(OSError, match="refused"):
        check_reachable("http://127.0.0.1:9")
