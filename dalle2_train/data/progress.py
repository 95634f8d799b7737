"""How work on many shards says how far it is."""

import sys
from collections.abc import Callable

Progress = Callable[[int, int | None], None]
"""(done, total), total None where it is not known beforehand."""


def on_stderr(what: str, unit: str) -> Progress:
    """A line for every word of progress: "ingest: 2000 samples"."""

    def tell(done: int, total: int | None) -> None:
        of_all = "" if total is None else f" of {total}"
        print(f"{what}: {done}{of_all} {unit}", file=sys.stderr)

    return tell
