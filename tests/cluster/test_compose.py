"""Compose files: known fields, pinned images, and nothing that another machine can reach."""

import re
from typing import Any

import jsonschema
import pytest
from cluster_files import CLUSTER, COMPOSE, DOCKERFILES, ROOT, load, name_of
from kuberay_types import TEXT, fields, one_of, some

_VALUES = {"type": "object", "additionalProperties": {"type": ["string", "null"]}}
_SERVICE = fields(
    image=TEXT,
    build=fields("context", context=TEXT, dockerfile=TEXT),
    restart={"type": "string", "pattern": r"^(no|always|unless-stopped|on-failure(:\d+)?)$"},
    profiles=some(TEXT),
    network_mode=one_of("host"),
    depends_on={
        "oneOf": [
            some(TEXT),
            {
                "type": "object",
                "additionalProperties": fields(
                    "condition", condition=one_of("service_started", "service_healthy")
                ),
            },
        ]
    },
    command=some(TEXT),
    environment=_VALUES,
    volumes=some({"type": "string", "pattern": r"^(\./)?[\w./-]+:/[\w./-]+(:ro)?$"}),
    ports=some(TEXT),
    secrets=some(TEXT),
    healthcheck=fields("test", test=some(TEXT), interval=TEXT, retries={"type": "integer"}),
)
SCHEMA = fields(
    "name",
    "services",
    name=TEXT,
    services={"type": "object", "additionalProperties": _SERVICE},
    volumes={"type": "object", "additionalProperties": {"type": "null"}},
    secrets={"type": "object", "additionalProperties": fields("environment", environment=TEXT)},
)
"""The part of the compose specification that we use."""

PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w.-]+)?")


@pytest.fixture(params=COMPOSE, ids=name_of)
def compose(request):
    return load(request.param)


def opened(service: dict[str, Any]) -> list[str]:
    """Addresses that a service is reached by from the machine's other networks."""
    found = [port for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
    if service.get("network_mode") != "host":
        return found
    said = [*service.get("command", []), *(f"{k}={v}" for k, v in service.get("environment", {}).items())]
    bound = [word for word in said if re.search(r"listen-address|HTTP_ADDR", word)]
    found += [word for word in bound if not re.search(r"=127\.0\.0\.1(:\d+)?$", word)]
    return found if bound else ["the machine's network, and no word of an address"]


def test_every_field_is_one_that_compose_has(compose):
    jsonschema.validate(compose, SCHEMA)


def test_nothing_is_published_but_on_127_0_0_1(compose):
    assert {name: opened(service) for name, service in compose["services"].items() if opened(service)} == {}


@pytest.mark.parametrize(
    "service",
    [
        {"ports": ["5000:5000"]},
        {"ports": ["0.0.0.0:5000:5000"]},
        {"ports": ["127.0.0.1:1:1", "9:9"]},
        {"network_mode": "host"},
        {"network_mode": "host", "command": ["--web.listen-address=:9090"]},
        {"network_mode": "host", "environment": {"GF_SERVER_HTTP_ADDR": "0.0.0.0"}},
    ],
)
def test_what_is_published_is_found(service):
    assert opened(service)


def test_images_are_pinned(compose):
    for name, service in compose["services"].items():
        assert PINNED.fullmatch(service["image"]), name


def test_volumes_and_secrets_that_are_used_are_named_and_files_are_there(compose, request):
    folder = request.node.callspec.params["compose"].parent
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (folder / source).exists() if source.startswith("./") else source in compose["volumes"]
        assert set(service.get("secrets", [])) <= set(compose.get("secrets", {}))
        if build := service.get("build"):
            context = (folder / build["context"]).resolve()
            assert context == ROOT and (context / build["dockerfile"]).is_file()


def test_the_servers_mlflow_is_the_clients():
    constraints = (ROOT / "constraints" / "cpu.txt").read_text().splitlines()
    image = load(CLUSTER / "mlflow" / "compose.yaml")["services"]["mlflow"]["image"]
    assert f"mlflow=={image.partition(':')[2]}" in constraints


def test_prometheus_asks_the_dashboard_with_the_token():
    (job,) = load(CLUSTER / "monitoring" / "prometheus.yml")["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    assert discovery["url"] == "http://127.0.0.1:8265/api/prometheus/sd"
    secret = discovery["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    compose = load(CLUSTER / "monitoring" / "compose.yaml")
    assert secret in compose["services"]["prometheus"]["secrets"]
    assert compose["secrets"][secret] == {"environment": "RAY_AUTH_TOKEN"}


@pytest.mark.parametrize("file", DOCKERFILES, ids=name_of)
def test_an_image_is_built_from_a_pinned_one_as_somebody_who_is_not_root(file):
    lines = file.read_text().splitlines()
    (base,) = (line.split()[1] for line in lines if line.startswith("FROM "))
    assert PINNED.fullmatch(base)
    defaults = dict(line.split()[1].partition("=")[::2] for line in lines if line.startswith("ARG "))
    (user,) = (line.split()[1] for line in lines if line.startswith("USER "))
    assert defaults.get(user.removeprefix("$"), user) == "1000"
    # The cluster launcher starts a shell in it, KubeRay its own command.
    assert not [line for line in lines if line.startswith("ENTRYPOINT")]


@pytest.mark.parametrize("file", DOCKERFILES, ids=name_of)
def test_what_an_image_copies_is_there_and_not_ignored(file):
    kept = [
        line[1:] for line in file.with_name("Dockerfile.dockerignore").read_text().split() if line[0] == "!"
    ]
    for line in file.read_text().splitlines():
        if line.startswith("COPY "):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists() and source in kept
