"""Work that is done ahead of who waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Generator[T]:
    """`items`, which never end, made by a thread up to `depth` ahead; 0 makes each when it is asked for."""
    if not depth:
        yield from items
        return
    thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    try:
        pending = deque(thread.submit(next, items) for _ in range(depth))
        while True:
            item = pending.popleft().result()
            pending.append(thread.submit(next, items))
            yield item
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
