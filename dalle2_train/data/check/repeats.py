"""Finds keys that come more than once among more keys than fit into memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Repeats:
    """Every key that was seen, in a temporary file of SQLite's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def among(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that came before, here or in an earlier call."""
        add = "INSERT OR IGNORE INTO keys VALUES (?)"
        return [key for key in keys if not self._database.execute(add, (key,)).rowcount]


@contextmanager
def repeats() -> Iterator[Repeats]:
    """The file is gone after the block."""
    database = sqlite3.connect("")  # without a name: on disk, and removed when it is closed
    try:
        yield Repeats(database)
    finally:
        database.close()
