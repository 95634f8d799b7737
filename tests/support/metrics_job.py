"""A job that hands each metric of a training to Ray, as a worker does, and goes on until it is ended."""

import time

import ray
from metric_names import COUNTERS, GAUGES
from ray.util.metrics import Counter, Gauge

SECONDS = 120


@ray.remote
def export() -> None:
    gauges = [Gauge(name.removeprefix("ray_"), tag_keys=("run",)) for name in GAUGES]
    for name in COUNTERS:
        Counter(name.removeprefix("ray_"), tag_keys=("run",)).inc(3, {"run": "up"})
    for _ in range(SECONDS):
        for number, gauge in enumerate(gauges):
            gauge.set(number + 0.5, {"run": "up"})
        time.sleep(1)


if __name__ == "__main__":
    ray.init()
    ray.get(export.remote())
