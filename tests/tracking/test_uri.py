import json
from http.server import BaseHTTPRequestHandler

import pytest
from servers import running

from dalle2_train.errors import InputError
from dalle2_train.tracking.uri import absolute_tracking_uri, connect, database_file


def test_a_database_stays_where_it_is_when_the_process_moves(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("sqlite:///mlflow.db", "mlflow.db", "./mlflow.db"):
        absolute = absolute_tracking_uri(uri)
        assert database_file(absolute) == tmp_path / "mlflow.db"
        assert absolute_tracking_uri(absolute) == absolute


def test_a_server_is_left_alone() -> None:
    assert absolute_tracking_uri("http://host:5000/") == "http://host:5000"
    assert database_file("http://host:5000") is None


@pytest.mark.parametrize("uri", ["", "mlruns", "file:/tmp/mlruns", "./runs", "s3://bucket/mlflow"])
def test_what_mlflow_cannot_use_is_refused_with_the_remedy(uri: str) -> None:
    with pytest.raises(InputError, match="sqlite:///FILE"):
        absolute_tracking_uri(uri)


def test_a_refusal_tells_no_password() -> None:
    with pytest.raises(InputError) as told:
        absolute_tracking_uri("mssql://user:hunter2@host/db")
    assert "mssql://***@host/db" in str(told.value) and "hunter2" not in str(told.value)


class OneRun(BaseHTTPRequestHandler):
    """Whatever it is asked or told, it answers with the run."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        info = {"run_id": "a", "run_name": "prior", "experiment_id": "1", "status": "FINISHED"}
        body = json.dumps({"run_info": info, "run": {"info": info, "data": {}}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_where_a_run_can_be_seen_is_printed_without_a_password(capsys, monkeypatch) -> None:
    for user in ("", "user:hunter2@"):
        monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "")
        monkeypatch.delenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
        with running(OneRun) as url:
            connect(url.replace("://", f"://{user}")).set_terminated("a", "FINISHED")
        said = capsys.readouterr().out
        assert "hunter2" not in said and (f"at: {url}/" in said) == (not user)
