"""What a recipe says of its workers reaches Ray; what there is no room for is told."""

import pytest
import ray

from dalle2_train.errors import InputError
from dalle2_train.launch import WorkerCount
from dalle2_train.launch.ray_configs import resources_of_worker, scaling_config
from dalle2_train.launch.ray_room import check_room
from dalle2_train.recipe import Recipe, load_recipe

WORKERS = (
    "workers.num_cpus=4", "workers.num_gpus=0.5", "workers.memory_gb=16", "workers.resources={nvme: 1}",
    "workers.accelerator_type=A100", "workers.labels={zone: a}", "workers.placement=SPREAD",
    "workers.resize_seconds=7",
)  # fmt: skip


def recipe(*settings: str) -> Recipe:
    return load_recipe("upsampler/tiny", settings)


def test_all_of_it_reaches_ray():
    scaling = scaling_config(recipe(*WORKERS), WorkerCount.of("2:4"), use_gpu=True)
    assert scaling.num_workers == (2, 4) and scaling.use_gpu
    assert scaling.resources_per_worker == {"CPU": 4.0, "GPU": 0.5, "memory": 16e9, "nvme": 1.0}
    assert scaling.accelerator_type == "A100" and scaling.placement_strategy == "SPREAD"
    assert scaling.label_selector == {"zone": "a"} and scaling.elastic_resize_monitor_interval_s == 7.0
    assert scaling_config(recipe(), WorkerCount.of(3), use_gpu=False).num_workers == 3
    assert resources_of_worker(recipe(), use_gpu=False) == {"CPU": 1.0}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("workers.num_cpus=0", "num_cpus is 0"),
        ("workers.num_gpus=-1", "num_gpus is -1"),
        ("workers.resources={CPU: 2}", "set workers.num_cpus, num_gpus or memory_gb"),
        ("workers.resources={nvme: 0}", "resources.nvme is 0"),
        ("workers.placement=NEAR", "placement"),
    ],
)
def test_what_makes_no_sense_is_refused(setting: str, told: str):
    with pytest.raises(InputError, match=told):
        recipe(setting)


def test_a_cluster_may_grow_and_this_machine_does_not(monkeypatch, capsys):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 6.0, "memory": 64e9})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 6.0, "memory": 64e9})
    check_room(recipe("workers.num_cpus=3"), WorkerCount.of(2), use_gpu=False, is_ours=True)
    assert capsys.readouterr().err == ""
    check_room(recipe("workers.num_cpus=4"), WorkerCount.of(2), use_gpu=False, is_ours=False)
    assert "2 workers need 8 CPU, and the cluster has 6 CPU" in capsys.readouterr().err
    with pytest.raises(
        InputError, match=r"2 workers need 8 CPU, 2 nvme, and this machine's Ray has 6 CPU, 0 nvme"
    ):
        check_room(
            recipe("workers.num_cpus=4", "workers.resources={nvme: 1}"),
            WorkerCount.of(2),
            use_gpu=False,
            is_ours=True,
        )


def test_who_waits_for_others_or_trains_without_a_gpu_is_told(monkeypatch, capsys):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 6.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    check_room(recipe("workers.num_gpus=0"), WorkerCount.of(2), use_gpu=False, is_ours=False)
    assert capsys.readouterr().err == (
        "waiting for others to end: 2 workers need 2 CPU, and of the cluster 1 CPU is free\n"
    )
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 6.0})
    check_room(recipe(), WorkerCount.of(2), use_gpu=False, is_ours=False)
    assert "training on CPUs" in capsys.readouterr().err
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 6.0, "GPU": 2.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 6.0, "GPU": 2.0})
    check_room(recipe(), WorkerCount.of(2), use_gpu=True, is_ours=False)
    check_room(recipe("workers.num_gpus=0"), WorkerCount.of(2), use_gpu=False, is_ours=True)
    assert capsys.readouterr().err == ""
