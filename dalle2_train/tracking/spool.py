"""Metrics on their way to MLflow, in a file of the run's folder: however long MLflow is away, none is lost.

What a restarted run finds there is sent again, and `RunWriter` passes over what MLflow has.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from mlflow.entities import Metric

from dalle2_train.storage.lines import JsonLines


class Spool:
    """A file that one thread adds to and another reads on from where it was."""

    def __init__(self, uri: str | None, completed_steps: int | None = None) -> None:
        """uri: None for a file that ends with this process. completed_steps: of an earlier attempt's metrics those up
        to it stay, the rest are made again; None: all stay."""
        limit = math.inf if completed_steps is None else completed_steps
        self._lines = JsonLines(uri, lambda line: line["step"] <= limit)
        # By this handle alone: under the name there may be another start's file by and by.
        self._stream = self._lines.path.open("rb")
        self._read = self._seen = 0

    def add(self, step: int, milliseconds: int, values: Mapping[str, float]) -> None:
        """milliseconds: since 1970."""
        # JSON has no word for what is no number; MLflow has.
        told = {name: v if math.isfinite(v) else str(v) for name, v in values.items()}
        self._lines.add({"step": step, "time": milliseconds, "values": told})

    def next(self, most: int) -> list[Metric]:
        """Up to `most` lines' metrics that have not been confirmed."""
        metrics: list[Metric] = []
        self._stream.seek(self._read)
        for _ in range(most):
            line = self._stream.readline()
            if not line.endswith(b"\n"):
                break
            metrics += _metrics(json.loads(line))
        self._seen = self._stream.tell() if line.endswith(b"\n") else self._stream.tell() - len(line)
        return metrics

    def confirm(self) -> None:
        """What `next` gave has arrived."""
        self._read = self._seen

    def flush(self) -> None:
        """Make what was added outlive this machine."""
        self._lines.flush()

    def close(self) -> None:
        """Nothing more is added; what has not arrived stays for a later start."""
        self._lines.close()
        self._stream.close()

    def discard(self) -> None:
        """All has arrived."""
        self._lines.discard()
        self._stream.close()

    def abandon(self) -> None:
        """The file is another's by now."""
        self._lines.abandon()
        self._stream.close()


def _metrics(line: Mapping[str, Any]) -> list[Metric]:
    return [Metric(name, float(value), line["time"], line["step"]) for name, value in line["values"].items()]
