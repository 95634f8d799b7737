"""A real MLflow store of SQLite, made once and copied, since making its tables takes seconds."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dalle2_train.tracking.uri import connect


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def tracking_uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    return connect(tracking_uri)
