"""Small files that say how a run stands, written in a thread: slow or absent storage holds up no step."""

import threading
from typing import Any

from dalle2_train import storage
from dalle2_train.training.records import report_once


class Publisher:
    """Publishes the newest JSON value of every file; older ones that were never written are forgotten."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._news = threading.Condition()
        self._closed = False
        self._complained: set[str] = set()
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self._thread.start()

    def put(self, uri: str, value: Any) -> None:
        """Returns at once."""
        with self._news:
            self._values[uri] = value
            self._news.notify()

    def close(self, timeout: float) -> None:
        """Write what is left; waits at most `timeout` seconds."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join(timeout)

    def abandon(self) -> None:
        """Write no more: the files are another's by now."""
        with self._news:
            self._values.clear()
            self._closed = True
            self._news.notify()

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._values or self._closed)
                values, self._values = self._values, {}
                if not values:
                    return
            for uri, value in values.items():
                try:
                    storage.publish_json(uri, value)
                except Exception as error:
                    report_once(self._complained, f"writing {uri}", error)
