"""A driver of a training on Ray in a process of its own, to be killed: what `train --workers` does, with keys recorded.

python driver_child.py STORAGE NAME DATA WORKERS KEY=VALUE…

DALLE2_TEST_WORK names another function of keys_recorded that each rank calls.
"""

import os
import sys

import keys_recorded
from ray_workers import local_ray
from tiny_recipes import UPSAMPLER

from dalle2_train import storage
from dalle2_train.checkpoints.layout import stop_uri
from dalle2_train.checkpoints.lease import Lease
from dalle2_train.launch import TrainJob, WorkerCount
from dalle2_train.launch.ray_trainer import train_on_ray
from dalle2_train.recipe import load_recipe


def main() -> None:
    place, name, data, workers, *settings = sys.argv[1:]
    job = TrainJob(load_recipe("upsampler/tiny", (*UPSAMPLER, *settings)), data, place, name)
    count = WorkerCount.of(workers)
    work = getattr(keys_recorded, os.environ.get("DALLE2_TEST_WORK", "run_recorded"))
    if "RAY_ADDRESS" not in os.environ:
        local_ray(count.most)
    with Lease(job.run_uri) as lease:
        storage.remove(stop_uri(job.run_uri))
        print(train_on_ray(job, count, lease.holder.id, work=work).step, flush=True)


if __name__ == "__main__":
    main()
