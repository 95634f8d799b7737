"""How work on many shards says how far it is."""

import sys
import time
from collections.abc import Callable
from datetime import timedelta

Progress = Callable[[int, int | None], None]
"""(done, total), total None where it is not known beforehand."""


def on_stderr(what: str, unit: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A line for every word of progress: "ingest: 2000 samples", "embed: 2 of 8 shards, 0:00:42 left"."""
    begun = clock()

    def tell(done: int, total: int | None) -> None:
        of_all = "" if total is None else f" of {total}"
        print(f"{what}: {done}{of_all} {unit}{_left(clock() - begun, done, total)}", file=sys.stderr)

    return tell


def _left(seconds: float, done: int, total: int | None) -> str:
    """At the pace so far."""
    if not done or total is None or done >= total:
        return ""
    return f", {timedelta(seconds=round(seconds * (total - done) / done))} left"
