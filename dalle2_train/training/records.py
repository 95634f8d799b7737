"""What a run writes about itself while it goes: every step's loss, and how far it is."""

import json
import math
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from dalle2_train import storage
from dalle2_train.checkpoints.layout import losses_uri, progress_uri

# A local file is cheap to replace; an object store is asked less often.
_SECONDS_BETWEEN_WRITES = {True: 1.0, False: 15.0}


def report_once(seen: set[str], what: str, error: Exception) -> None:
    """Say on stderr that something beside the training failed, the first time."""
    if what not in seen:
        seen.add(what)
        print(f"{what} failed and is ignored from here on: {type(error).__name__}: {error}", file=sys.stderr)


class JsonLines:
    """A file of JSON lines in a run's folder; of an earlier attempt's those stay that `keeps` says.

    On a local file system lines are appended as they come; on remote storage the file is replaced at `flush`.
    """

    def __init__(self, uri: str, keeps: Callable[[dict[str, Any]], bool]) -> None:
        self.uri = uri
        kept = [line for line in self._lines() if keeps(json.loads(line))]
        local = storage.local_path(self.uri)
        self._is_remote = local is None
        self.path = local or Path(tempfile.mkdtemp(prefix="dalle2-lines-")) / "lines.jsonl"
        storage.publish_bytes(str(self.path), "".join(f"{line}\n" for line in kept).encode())
        self._stream: IO[str] = self.path.open("a", buffering=1)

    def add(self, values: dict[str, Any]) -> None:
        # What is no number is null: NaN is not JSON.
        written = {
            name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()
        }
        self._stream.write(json.dumps(written, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Make what was added outlive this machine."""
        self._stream.flush()
        if self._is_remote:
            storage.publish_file(self.path, self.uri)
        else:
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """May be called again."""
        if not self._stream.closed:
            self.flush()
            self._stream.close()

    def _lines(self) -> list[str]:
        """The whole lines of an earlier attempt; a killed one may have left half a line at the end."""
        if not storage.exists(self.uri):
            return []
        return [line for line in storage.read_bytes(self.uri).decode().split("\n")[:-1] if line.endswith("}")]


class LossRecord(JsonLines):
    """NAME/losses.jsonl: one line a step, rewound to the checkpoint that a restart goes on from."""

    def __init__(self, run_uri: str, completed_steps: int) -> None:
        super().__init__(losses_uri(run_uri), lambda line: line["step"] <= completed_steps)


class Progress:
    """NAME/progress.json, replaced as a whole and seldom enough to cost nothing."""

    def __init__(self, run_uri: str, num_steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.uri, self.num_steps, self._clock = progress_uri(run_uri), num_steps, clock
        self._interval = _SECONDS_BETWEEN_WRITES[storage.local_path(run_uri) is not None]
        self._times: deque[float] = deque(maxlen=51)
        self._last_write = -float("inf")

    @property
    def seconds_per_step(self) -> float | None:
        """The mean over the last steps, all that happens between them included."""
        if len(self._times) < 2:
            return None
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)

    def update(self, step: int, loss: float) -> None:
        now = self._clock()
        self._times.append(now)
        if now - self._last_write >= self._interval:
            self._last_write = now
            self.write("running", step, loss)

    def write(self, status: str, step: int, loss: float | None) -> None:
        seconds = self.seconds_per_step
        storage.publish_json(
            self.uri,
            {
                "status": status,
                "step": step,
                "num_steps": self.num_steps,
                "loss": loss if loss is not None and math.isfinite(loss) else None,
                "seconds_per_step": seconds,
                "seconds_left": None if seconds is None else seconds * (self.num_steps - step),
                "updated": time.time(),
            },
        )
