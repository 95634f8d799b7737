import pytest

from dalle2_train.errors import InputError
from dalle2_train.tracking.uri import absolute_tracking_uri, database_file


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
