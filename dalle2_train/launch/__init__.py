"""Puts the rooms together for training, in this process or on Ray's workers; the only home of Ray."""

from dalle2_train.launch.checks import check
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.start import train
from dalle2_train.launch.worker_count import WorkerCount

__all__ = ["TrainJob", "WorkerCount", "check", "train"]
