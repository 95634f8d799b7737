"""Functions of a support module as processes, forked from a server that has done the slow imports once."""

import importlib
import multiprocessing
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PATIENCE = 300.0
"""Seconds; a process that has not ended after them has failed."""


class Forked:
    """Starts functions of the support module of that name."""

    def __init__(self, module: str) -> None:
        # The server knows this process's path only by the environment.
        support = Path(__file__).parent
        os.environ["PYTHONPATH"] = os.pathsep.join([str(support), str(support.parents[1])])
        self._module = module
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([module])

    def start(self, name: str, *args: Any, **options: Any) -> Any:
        """The process, started."""
        process = self._context.Process(target=_call, args=(self._module, name, args, options))
        process.start()
        return process

    def barrier(self, parties: int) -> Any:
        """For so many of the processes, which it is given to as an argument."""
        return self._context.Barrier(parties)

    def finish(self, processes: Iterable[Any]) -> None:
        """Wait for them. One that does not end well: RuntimeError."""
        for process in processes:
            process.join(PATIENCE)
            if process.exitcode != 0:
                raise RuntimeError(f"a process ended with {process.exitcode}")


def _call(module: str, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    getattr(importlib.import_module(module), name)(*args, **options)
