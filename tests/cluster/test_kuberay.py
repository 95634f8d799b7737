"""KubeRay's documents: fields that there are, and what they have to agree on."""

import copy
import inspect
from typing import Any

import jsonschema
import pytest
from cluster_files import CLUSTER, KUBERNETES, ROOT, load, name_of
from kuberay_types import KINDS
from ray._private import ray_constants

DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
CLUSTER_FILE, JOB_FILE = CLUSTER / "kuberay" / "raycluster.yaml", CLUSTER / "kuberay" / "rayjob.yaml"


def validate(document: Any) -> None:
    jsonschema.Draft202012Validator(KINDS[document["kind"]]).validate(document)


@pytest.mark.parametrize("file", KUBERNETES, ids=name_of)
def test_every_field_is_one_that_its_kind_has(file):
    validate(load(file))


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ((), "headgroupSpec", {}),
        (("headGroupSpec",), "rayStartParam", {}),
        (("headGroupSpec", "template", "spec"), "automountServiceAccountTokens", False),
        (("headGroupSpec", "template", "spec", "containers", 0), "envfrom", []),
        (("headGroupSpec", "template", "spec", "containers", 0, "resources", "limits"), "cpu", 2),
        (("headGroupSpec", "rayStartParams"), "num-cpus", 0),
        (("authOptions",), "mode", "tokens"),
        (("workerGroupSpecs", 0), "replica", 2),
        (("workerGroupSpecs", 0), "replicas", "2"),
    ],
)
def test_a_misspelt_field_or_one_of_another_type_is_found(path, name, value):
    document = copy.deepcopy(load(CLUSTER_FILE))
    place = document["spec"]
    for step in path:
        place = place[step]
    place[name] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(document)


def specs() -> list[dict[str, Any]]:
    """The RayCluster, and the cluster of the RayJob."""
    return [load(CLUSTER_FILE)["spec"], load(JOB_FILE)["spec"]["rayClusterSpec"]]


def test_the_jobs_cluster_is_the_cluster_but_for_the_dashboards_address():
    cluster, job = specs()
    assert cluster["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "127.0.0.1"
    assert job["headGroupSpec"]["rayStartParams"].pop("dashboard-host") == "0.0.0.0"
    assert cluster == job


@pytest.mark.parametrize("spec", specs(), ids=["RayCluster", "RayJob"])
def test_a_worker_that_is_told_to_go_has_time_for_a_checkpoint(spec):
    """Ray drains a node for as long as it is told, else for 30 s, and Kubernetes kills the pod after its own time."""
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        drained = {one["name"]: one["value"] for one in container["env"]}[DRAIN]
        assert 60 <= float(drained) < pod["terminationGracePeriodSeconds"]
    assert DRAIN in inspect.getsource(ray_constants)


@pytest.mark.parametrize("spec", specs(), ids=["RayCluster", "RayJob"])
def test_a_token_is_asked_for_and_no_pod_is_root_or_may_talk_to_kubernetes(spec):
    assert spec["authOptions"] == {"mode": "token", "secretName": "dalle2-train-token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("spec", specs(), ids=["RayCluster", "RayJob"])
def test_volumes_that_are_mounted_are_there_and_a_groups_numbers_agree(spec):
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_asks_for_as_many_workers_as_its_cluster_has_gpus():
    spec = load(JOB_FILE)["spec"]
    words = spec["entrypoint"].split()
    gpus = sum(
        group["replicas"]
        * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for group in spec["rayClusterSpec"]["workerGroupSpecs"]
    )
    assert int(words[words.index("--workers") + 1]) == gpus


def test_the_ray_version_is_that_of_the_image():
    constraints = (ROOT / "constraints" / "cpu.txt").read_text().splitlines()
    for spec in specs():
        assert f"ray=={spec['rayVersion']}" in constraints


def test_policy_and_monitor_choose_the_very_pods():
    labels = [
        group["template"]["metadata"]["labels"]
        for spec in specs()
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    ]
    policy, monitor = (load(CLUSTER / "kuberay" / f"{name}.yaml") for name in ("networkpolicy", "podmonitor"))
    assert all(policy["spec"]["podSelector"]["matchLabels"] == found for found in labels)
    assert all(monitor["spec"]["selector"]["matchLabels"] == found for found in labels)
