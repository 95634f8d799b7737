"""No file of cluster/ holds a secret, and the search for them finds those that are planted."""

import re
from typing import Any

import pytest
import yaml
from cluster_files import CLUSTER, load, name_of

SENSITIVE = re.compile(r"pass(word|wd)?$|secret(_?key)?$|token$|credentials?$|access_?key(_id)?$", re.I)
FROM_ENVIRONMENT = re.compile(r"\$\{\w+(:\?[^}]*)?\}|\$\w+(/[\w./-]+)?|…")
REFERENCES = {"automountServiceAccountToken"}
"""Names that only sound like a secret's."""

ASSIGNMENT = re.compile(r"(?<![\w/.-])([A-Za-z_]+) *= *[\"']?([^\s\"'`]*)")
IN_A_URL = re.compile(r"\w+://[^/\s:@]+:([^@\s/]+)@")
LONG_RANDOM = re.compile(r"\b(?=[A-Za-z+]*\d)(?=\d*[A-Za-z])[A-Za-z0-9+]{32,}\b|AKIA[A-Z0-9]{16}|-----BEGIN")


def harmless(value: str) -> bool:
    """Empty, left out, taken from the environment or a file that it names, or made on the spot."""
    return not value or value.startswith("$(") or FROM_ENVIRONMENT.fullmatch(value) is not None


def in_document(value: Any, name: str = "") -> list[str]:
    """Sensitive names in YAML whose value stands there in words."""
    if isinstance(value, dict):
        # Kubernetes writes an environment as a list of {name, value}.
        if SENSITIVE.search(str(value.get("name", ""))) and not harmless(str(value.get("value", ""))):
            return [str(value["name"])]
        return [found for key, part in value.items() for found in in_document(part, str(key))]
    if isinstance(value, list):
        return [found for part in value for found in in_document(part, name)]
    is_secret = SENSITIVE.search(name) and name not in REFERENCES and "/" not in name
    return [name] if is_secret and isinstance(value, str) and not harmless(value) else []


def in_text(text: str) -> list[str]:
    """Assignments, URLs and long random words that look like secrets."""
    assigned = [
        name
        for name, value in ASSIGNMENT.findall(text)
        if SENSITIVE.search(name) and not (harmless(value) or value.startswith("${RAY_AUTH_TOKEN:-$("))
    ]
    in_urls = [found for found in IN_A_URL.findall(text) if not harmless(found)]
    return assigned + in_urls + LONG_RANDOM.findall(text)


FILES = [file for file in sorted(CLUSTER.rglob("*")) if file.is_file()]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_there_is_none(file):
    text = file.read_text()
    if file.suffix in (".yaml", ".yml", ".json"):
        assert in_document(load(file)) == []
        assert [
            found for found in IN_A_URL.findall(text) + LONG_RANDOM.findall(text) if not harmless(found)
        ] == []
    else:
        assert in_text(text) == []


@pytest.mark.parametrize(
    "document",
    [
        "services: {db: {environment: {POSTGRES_PASSWORD: hunter2}}}",
        "services: {db: {environment: {POSTGRES_PASSWORD: '${POSTGRES_PASSWORD:-hunter2}'}}}",
        "containers: [{env: [{name: RAY_AUTH_TOKEN, value: abc}]}]",
        "stringData: {auth_token: abc}",
        "authorization: {credentials: abc}",
        "environment: {AWS_SECRET_ACCESS_KEY: abc}",
        "environment: {AWS_ACCESS_KEY_ID: abc}",
    ],
)
def test_one_in_a_document_is_found(document):
    assert in_document(yaml.safe_load(document))


@pytest.mark.parametrize(
    "text",
    [
        "export RAY_AUTH_TOKEN=abc",
        "RAY_AUTH_TOKEN='abc'",
        "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=abc",
        "admin_password = hunter2",
        "ENV AWS_SECRET_ACCESS_KEY=abc",
        "postgresql://mlflow:hunter2@postgres/mlflow",
        "--header 0123456789abcdef0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_one_in_a_text_is_found(text):
    assert in_text(text)
