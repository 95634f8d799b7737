"""Can MLflow be reached, and does it let us in?"""

import urllib.request
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.tracking.uri import absolute_tracking_uri, connect, database_file

_TIMEOUT_SECONDS = 5.0


def check_reachable(uri: str) -> None:
    """Raises InputError where `uri` is none of MLflow's, its database cannot be written, or its server refuses us;
    OSError where no server answers."""
    uri = absolute_tracking_uri(uri)
    file = database_file(uri)
    if file is not None:
        storage.check_writable(str(file.parent))
    elif uri.startswith("http"):
        # MLflow's own client would wait minutes for a server that is not there; but this page asks for no password.
        with urllib.request.urlopen(f"{_without_user(uri)}/health", timeout=_TIMEOUT_SECONDS):
            pass
        try:
            connect(uri).search_experiments(max_results=1)
        except MlflowException as error:
            raise InputError(f"it answers, but refuses us ({redact(str(error))}); set MLFLOW_TRACKING_USERNAME and "
                             "MLFLOW_TRACKING_PASSWORD") from error  # fmt: skip


def _without_user(uri: str) -> str:
    """urllib takes a user before the host for a part of its name."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
