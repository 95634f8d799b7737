"""Spreads work on many shards over the cores of this machine."""

from __future__ import annotations

import multiprocessing as mp
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_FEWEST_TASKS = 16
"""Fewer are done sooner than other processes have started."""


def in_processes(work: Callable[[T], R], tasks: Sequence[T]) -> Iterator[R]:
    """The results in the tasks' order, as of `map`; few wait at any time. Both must survive pickling."""
    num_processes = os.cpu_count() or 1
    if num_processes == 1 or len(tasks) < _FEWEST_TASKS:
        yield from map(work, tasks)
        return
    # Not forked: the caller may have threads.
    with ProcessPoolExecutor(num_processes, mp_context=mp.get_context("spawn")) as pool:
        waiting: deque[Future[R]] = deque()
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) >= 4 * num_processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
