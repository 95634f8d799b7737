"""The registry: a model version is a URI and a digest with the metrics that speak for it; weights stay in storage."""

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.redaction import redact
from dalle2_train.tracking.uri import absolute_tracking_uri, connect, database_file

_METRIC = "metric."
_AUDIT = "audit."
_MODELS_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ModelVersion:
    """One registered model."""

    name: str
    version: int
    uri: str
    """Where it lies in storage."""
    digest: str
    """What it was when it was registered; whoever opens the URI compares."""
    metrics: dict[str, float]
    """Of its evaluation, dotted names."""
    tags: dict[str, str]
    """All of MLflow's, the above among them."""


def register(
    name: str,
    model_uri: str,
    digest: str,
    metrics: Mapping[str, float],
    *,
    tracking_uri: str,
    tags: Mapping[str, str] | None = None,
) -> ModelVersion:
    """A version of `name` that stands for the model at `model_uri`. The same URI and digest again: the same version,
    with these metrics and tags."""
    uri = storage.absolute(model_uri)
    described = {
        "uri": uri,
        "digest": digest,
        **(tags or {}),
        **{_METRIC + metric: repr(float(value)) for metric, value in metrics.items()},
    }
    with _client(tracking_uri) as client:
        if not _registered(client, name):
            _create(client, name)
        for found in client.search_model_versions(f"name = {_quoted(name)}"):
            if (found.tags.get("uri"), found.tags.get("digest")) == (uri, digest):
                for tag, value in described.items():
                    client.set_model_version_tag(name, str(found.version), tag, value)
                return _version(client.get_model_version(name, str(found.version)))
        source = _source(uri, tracking_uri)
        return _version(client.create_model_version(name, source, tags=described, await_creation_for=0))


def set_alias(name: str, alias: str, version: int, *, tracking_uri: str) -> None:
    """Points NAME@ALIAS at a version, in one transaction. InputError for a version that is not there."""
    with _client(tracking_uri) as client:
        client.get_model_version(name, str(version))
        client.set_registered_model_alias(name, alias, str(version))


def by_alias(name: str, alias: str, *, tracking_uri: str) -> ModelVersion | None:
    """What NAME@ALIAS points at, None where it points at nothing. A database that is not there is not made."""
    file = database_file(absolute_tracking_uri(tracking_uri))
    if file is not None and not file.exists():
        return None
    with _client(tracking_uri) as client:
        model = _registered(client, name)
        version = model.aliases.get(alias) if model else None
        return _version(client.get_model_version(name, str(version))) if version else None


def lookup(models_uri: str, *, tracking_uri: str) -> ModelVersion:
    """models:/NAME@ALIAS or models:/NAME/3 → its version. InputError where there is none."""
    parts = _MODELS_URI.fullmatch(models_uri)
    if parts is None:
        raise InputError(
            f"{models_uri}: not a registered model; write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    name, alias, version = parts["name"], parts["alias"], parts["version"]
    if version is not None:
        return by_version(name, int(version), tracking_uri=tracking_uri)
    found = by_alias(name, alias, tracking_uri=tracking_uri)
    if found is None:
        raise InputError(f"{models_uri}: {name} has no alias {alias!r}; promote a model to it first")
    return found


def by_version(name: str, version: int, *, tracking_uri: str) -> ModelVersion:
    """InputError where there is none."""
    with _client(tracking_uri) as client:
        return _version(client.get_model_version(name, str(version)))


def resolve(models_uri: str, *, tracking_uri: str) -> str:
    """models:/NAME@ALIAS or models:/NAME/3 → where the model lies. Compare its digest with `lookup`'s."""
    return lookup(models_uri, tracking_uri=tracking_uri).uri


def append_audit(name: str, entry: Mapping[str, Any], *, tracking_uri: str) -> None:
    """Adds one entry to what was decided about the registered model `name`. Entries are never overwritten."""
    key = f"{_AUDIT}{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    with _client(tracking_uri) as client:
        client.set_registered_model_tag(name, key, json.dumps(entry, sort_keys=True))


def read_audit(name: str, *, tracking_uri: str) -> list[dict[str, Any]]:
    """All entries, oldest first; none for a model that is not registered."""
    with _client(tracking_uri) as client:
        model = _registered(client, name)
        tags = model.tags if model else {}
        return [json.loads(tags[key]) for key in sorted(tags) if key.startswith(_AUDIT)]


@contextmanager
def _client(tracking_uri: str) -> Iterator[Any]:
    """MLflow's errors about what is not there, or is wrong, are the user's input."""
    try:
        yield connect(absolute_tracking_uri(tracking_uri))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise InputError(
                f"registry at {redact(tracking_uri)}: {redact(error.message)}; check name and version"
            ) from error
        raise


def _registered(client: Any, name: str) -> Any | None:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _create(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        # Another process may have been quicker.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _source(uri: str, tracking_uri: str) -> str:
    """A server refuses a local path as a source, since it could not serve it; nor does it need to."""
    on_server = database_file(absolute_tracking_uri(tracking_uri)) is None
    return f"dalle2-train:{uri}" if on_server and storage.local_path(uri) else uri


def _quoted(name: str) -> str:
    return f'"{name}"' if "'" in name else f"'{name}'"


def _version(found: MlflowVersion) -> ModelVersion:
    tags = dict(found.tags)
    if "uri" not in tags or "digest" not in tags:
        raise InputError(
            f"models:/{found.name}/{found.version} was not registered by dalle2-train: it records no uri and digest; "
            "promote the model again"
        )
    metrics = {
        tag.removeprefix(_METRIC): float(value) for tag, value in tags.items() if tag.startswith(_METRIC)
    }
    return ModelVersion(found.name, int(found.version), tags["uri"], tags["digest"], metrics, tags)
