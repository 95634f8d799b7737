"""Where chunks are read and decoded: in this process when they are wanted, or ahead of that in processes of their own.

Any worker does any chunk, so that their number decides nothing but the speed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Protocol

from dalle2_train.data.decoded import Decoded
from dalle2_train.data.faults import Fault
from dalle2_train.data.samples.loader import Loader, Wanted
from dalle2_train.data.shards.reader import RawSample


class Chunk(Protocol):
    """Samples that were asked for together."""

    def __getitem__(self, position: int) -> Decoded | Fault: ...


class Workers(Protocol):
    """Who does the work of a stream's loaders."""

    def load(self, loader: int, wanted: Sequence[Wanted]) -> Chunk:
        """Ask for samples of the loader of that number. Errors come when they are taken."""
        ...

    def close(self) -> None:
        """Give up what is under way, and leave no process behind."""
        ...


def open_workers(loaders: Sequence[Loader], num_workers: int) -> Workers:
    """`num_workers` processes, or none for 0."""
    return LoaderProcesses(loaders, num_workers) if num_workers else InThisProcess(loaders)


class InThisProcess:
    """A chunk is read when its first sample is wanted, and each sample decoded when it is."""

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self._loaders = loaders

    def load(self, loader: int, wanted: Sequence[Wanted]) -> Chunk:
        return _LazyChunk(self._loaders[loader], wanted)

    def close(self) -> None:
        pass


class _LazyChunk:
    def __init__(self, loader: Loader, wanted: Sequence[Wanted]) -> None:
        self._loader, self._wanted = loader, wanted
        self._raw: list[RawSample] | None = None

    def __getitem__(self, position: int) -> Decoded | Fault:
        if self._raw is None:
            self._raw = self._loader.read([place for place, _ in self._wanted])
        return self._loader.decoded(self._wanted[position], self._raw[position])


class LoaderProcesses:
    """Chunks are done in the order in which they are asked for, by whichever process is free."""

    def __init__(self, loaders: Sequence[Loader], num_workers: int) -> None:
        # Spawned: a fork would copy the threads' locks of training in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, self._alive = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(num_workers, context, _begin, (tuple(loaders), ours))

    def load(self, loader: int, wanted: Sequence[Wanted]) -> Chunk:
        try:
            return _PendingChunk(self._executor.submit(_load, loader, wanted))
        except BrokenProcessPool as error:
            raise _died() from error

    def close(self) -> None:
        # Workers that ended while they hand over a chunk would leave the executor waiting for the rest of it.
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._alive.close()


class _PendingChunk:
    def __init__(self, future: Future[list[Decoded | Fault]]) -> None:
        self._future = future

    def __getitem__(self, position: int) -> Decoded | Fault:
        try:
            return self._future.result()[position]
        except BrokenProcessPool as error:
            raise _died() from error


def _died() -> RuntimeError:
    return RuntimeError(
        "a loader worker died, most often because memory ran out; lower data.num_workers or data.prefetch_batches"
    )


_loaders: tuple[Loader, ...] = ()
"""In a worker: what it was started with."""


def _begin(loaders: tuple[Loader, ...], alive: Connection) -> None:
    global _loaders
    _loaders = loaders
    # Ctrl-C reaches the whole group; what follows from it is the parent's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(alive,), daemon=True).start()


def _end_with_parent(alive: Connection) -> None:
    """Nothing is ever sent: the pipe ends when the parent closes it, or is killed."""
    try:
        alive.recv_bytes()
    except (EOFError, OSError):
        os._exit(0)


def _load(loader: int, wanted: Sequence[Wanted]) -> list[Decoded | Fault]:
    return _loaders[loader](wanted)
