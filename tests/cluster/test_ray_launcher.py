"""The files of `ray up`, against the schema that Ray itself checks them with."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from cluster_files import LAUNCHERS, ROOT, load, name_of
from ray.autoscaler._private.util import fillout_defaults

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())


@pytest.fixture(params=LAUNCHERS, ids=name_of)
def config(request):
    return load(request.param)


def test_ray_takes_it(config):
    jsonschema.validate(config, SCHEMA)
    types = config["available_node_types"]
    assert config["head_node_type"] in types
    assert sum(kind.get("min_workers", 0) for kind in types.values()) <= config["max_workers"]


def test_a_misspelt_key_is_found(config):
    config["head_start_ray_command"] = config.pop("head_start_ray_commands")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, SCHEMA)


def test_the_token_goes_to_every_node_and_the_dashboard_listens_on_the_heads_own_address(config):
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    (start,) = (command for command in config["head_start_ray_commands"] if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in start.split()
    (join,) = (command for command in config["worker_start_ray_commands"] if "--address" in command)
    port = re.search(r"--port=(\d+)", start)
    assert port is not None and f"--address=$RAY_HEAD_IP:{port[1]}" in join.split()


def test_training_is_the_workers_and_not_the_heads(config):
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}


def test_workers_containers_see_their_gpus(config):
    """The runtime that Ray chooses for them shows none that are not asked for."""
    assert config["docker"]["worker_run_options"] == ["--gpus all"]


def test_ray_installs_nothing_beside_what_the_image_has(config):
    filled = fillout_defaults(config)
    kinds = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    assert [filled[kind] for kind in kinds] == [[], [], []]
    # What Ray would add where we leave them out.
    assert any("pip install" in command for command in
               fillout_defaults({"provider": config["provider"]})["head_setup_commands"])  # fmt: skip


def test_the_mounted_home_is_the_images(config):
    assert "ENV HOME=/home/ray " in (ROOT / "cluster" / "Dockerfile").read_text()
    assert all(place.startswith("/home/ray/") for place in config["file_mounts"])
