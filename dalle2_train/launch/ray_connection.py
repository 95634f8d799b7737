"""Joins Ray, or starts one for as long as there is work for it."""

import logging
import os
from typing import Any

import ray

from dalle2_train.errors import InputError


def connect(workers: int) -> bool:
    """Join a Ray cluster, or start a local one with room for the workers. Was it started here, for this work?"""
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"logging_level": logging.WARNING}
    if "RAY_ADDRESS" not in os.environ:
        # A local Ray's workers are ours: what they have to say comes back as a result, an error or progress.json.
        options |= {
            # Else Ray would join what `ray start` has left on this machine, whoever asked for that.
            "address": "local",
            "num_cpus": max(workers, os.cpu_count() or 1),
            "include_dashboard": False,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise InputError(
            f"RAY_ADDRESS is {os.environ.get('RAY_ADDRESS')!r}, where no Ray answers ({error}); start it there with "
            "`ray start`, or unset RAY_ADDRESS"
        ) from error
    return "RAY_ADDRESS" not in os.environ
