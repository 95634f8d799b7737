"""Where MLflow is: a server, or a database file named so that every process finds the same one."""

import logging
import os
from pathlib import Path

from mlflow import MlflowClient

from dalle2_train.errors import InputError
from dalle2_train.redaction import redact

_SQLITE = "sqlite:///"


def absolute_tracking_uri(uri: str) -> str:
    """`uri` with the path of a database file made absolute: workers change directory, and a relative file moves.

    `FILE.db` means sqlite:///FILE.db. Raises InputError for what MLflow cannot use.
    """
    if uri.endswith((".db", ".sqlite")) and "://" not in uri:
        uri = _SQLITE + uri
    if uri.startswith(_SQLITE):
        return _SQLITE + os.path.abspath(os.path.expanduser(uri.removeprefix(_SQLITE)))
    if uri.split("://")[0] in ("http", "https", "databricks", "postgresql", "mysql") and "://" in uri:
        return uri.rstrip("/")
    raise InputError(f"tracking {redact(uri)!r}: MLflow needs sqlite:///FILE or http(s)://HOST:PORT")


def database_file(uri: str) -> Path | None:
    """The file behind an absolute sqlite URI, None for a server."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def connect(uri: str) -> MlflowClient:
    """A client of the tracking store and registry at `uri` (absolute); makes a database's folder."""
    # Its news of tables made and monitors started are nobody's; warnings stay.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if redact(uri) != uri:  # at the end of a run it prints the server's address as it is
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    file = database_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)
