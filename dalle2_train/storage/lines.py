"""Files of JSON lines that grow while something goes on, and outlive this machine once flushed."""

import json
import math
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dalle2_train.redaction import redact
from dalle2_train.storage.growing import GrowingFile
from dalle2_train.storage.listing import exists
from dalle2_train.storage.places import local_path
from dalle2_train.storage.reading import read_bytes
from dalle2_train.storage.scratch import Scratch
from dalle2_train.storage.writing import publish_bytes, remove


class JsonLines:
    """A file of JSON lines in a run's folder; of an earlier attempt's those stay that `keeps` says.

    On a local file system lines are appended as they come; on remote storage the file is replaced at `flush`.
    """

    def __init__(self, uri: str | None, keeps: Callable[[dict[str, Any]], bool] = lambda _: True) -> None:
        """uri: None for a file that ends with this process."""
        self.uri = uri
        kept = [line for line, values in self._lines() if keeps(values)]
        local = None if uri is None else local_path(uri)
        self._scratch = Scratch() if local is None else None
        # Lines are added by the training, and flushed by who writes its checkpoints; storage that fails keeps both
        # waiting.
        self._lock = threading.Lock()
        self.path = self._scratch.path / "lines.jsonl" if self._scratch is not None else Path(str(local))
        publish_bytes(str(self.path), "".join(f"{line}\n" for line in kept).encode())
        self._file = GrowingFile(self.path)

    def add(self, values: dict[str, Any]) -> None:
        """A line more, which `flush` makes last."""
        # What is no number is null: NaN is not JSON.
        written = {
            name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()
        }
        line = json.dumps(written, allow_nan=False) + "\n"
        with self._lock:
            self._file.append(line.encode())

    def flush(self) -> None:
        """Make what was added outlive this machine. Any thread may call it."""
        with self._lock:
            if self._file.closed:
                return
            self._file.sync()
            text = b"" if self._scratch is None else self.path.read_bytes()
        if self._scratch is not None and self.uri is not None:
            publish_bytes(self.uri, text)

    def close(self) -> None:
        """May be called again."""
        if not self._file.closed:
            self.flush()
            with self._lock:
                self._file.close()
            if self._scratch is not None:
                self._scratch.close()

    def abandon(self) -> None:
        """Close it as it is: the file is another's by now, or nobody's."""
        with self._lock:
            self._file.abandon()
        if self._scratch is not None:
            self._scratch.close()

    def discard(self) -> None:
        """It has served: close it, and remove it."""
        self.close()
        if self.uri is not None:
            remove(self.uri)

    def _lines(self) -> list[tuple[str, dict[str, Any]]]:
        """(line, values) of an earlier attempt. A killed one may have left half a line, a disk without power worse."""
        if self.uri is None or not exists(self.uri):
            return []
        texts = read_bytes(self.uri).decode(errors="replace").split("\n")
        found = [(line, _values(line)) for line in texts if line]
        whole = [(line, values) for line, values in found if values is not None]
        if len(whole) < len(found):
            print(
                f"{redact(self.uri)}: {len(found) - len(whole)} damaged lines are left out", file=sys.stderr
            )
        return whole


def _values(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
