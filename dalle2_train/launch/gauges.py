"""What Prometheus reads of a training, through the metrics endpoint that every Ray node has."""

from collections.abc import Mapping
from typing import Any

from PIL import Image
from ray.util.metrics import Counter, Gauge

_GAUGES = {
    "loss": "loss of the last logged step",
    "samples_per_second": "samples trained on a second",
    "seconds_per_step": "seconds a step takes, all that happens between steps included",
    "goodput": "share of wall time in steps that are in the history",
    "data_wait_seconds": "seconds a rank waited for the last batch, in the mean",
    "data_wait_max_seconds": "seconds the slowest rank waited for the last batch",
    "checkpoint_stall_seconds": "seconds the last checkpoint kept the training waiting",
    "straggler_ratio": "the slowest rank's time for the same small work, by the median rank's",
    "step": "steps done",
    "num_steps": "steps to do",
    "faulty_samples": "faults of the data on record, those of earlier attempts too",
}
_COUNTERS = {
    "skipped_steps": "updates left out",
    "loss_spikes": "losses that stood out of those before",
    "restarts": "starts that went on from a checkpoint",
}
_FAULTS = "faults/"


class Gauges:
    """A recorder of the last values of a run, which are tagged with its name."""

    def __init__(self, run: str, num_steps: int) -> None:
        self._tags = {"run": run}
        self._gauges = {name: Gauge(f"dalle2_{name}", text, ("run",)) for name, text in _GAUGES.items()}
        self._counters = {name: Counter(f"dalle2_{name}", text, ("run",)) for name, text in _COUNTERS.items()}
        self._lasting = {"num_steps": num_steps, "faulty_samples": 0.0}

    def begin(self, completed_steps: int) -> None:
        """An attempt that goes on from a checkpoint is a restart."""
        if completed_steps > 0:
            self._count("restarts", 1)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Sets those that Prometheus is shown, of whatever a step tells."""
        if faults := [count for name, count in values.items() if name.startswith(_FAULTS)]:
            self._lasting["faulty_samples"] = sum(faults)
        # Ray forgets what is not told anew.
        shown = {"step": step, **self._lasting, **values}
        for name in _GAUGES.keys() & shown.keys():
            self._gauges[name].set(shown[name], self._tags)
        for name in _COUNTERS.keys() & values.keys():
            self._count(name, values[name])

    def image(self, name: str, step: int, image: Image.Image) -> None:
        """Ignored: Prometheus keeps numbers alone."""

    def document(self, name: str, value: Mapping[str, Any]) -> None:
        """Ignored, likewise."""

    def flush(self) -> None:
        """Ray sends on its own."""

    def finish(self, status: str) -> None:
        """The last values stay until Prometheus forgets them."""

    def abandon(self) -> None:
        """Likewise."""

    def _count(self, name: str, more: float) -> None:
        if more > 0:
            self._counters[name].inc(more, self._tags)
