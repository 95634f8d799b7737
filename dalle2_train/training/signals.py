"""SIGTERM and Ctrl-C ask a training to stop after a checkpoint; a second Ctrl-C ends it where it stands."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def ask_on_signals(ask: Callable[[], object]) -> dict[signal.Signals, Any]:
    """From here on a signal calls `ask`; returns the handlers it replaced: none outside of the main thread.

    A signal that this process was told to ignore (Ctrl-C under nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    earlier = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    heeded = {number: handler for number, handler in earlier.items() if handler is not signal.SIG_IGN}

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not print: a signal may come in the midst of one.
        os.write(
            sys.stderr.fileno(), b"\nstopping with a checkpoint; Ctrl-C once more ends at once, without\n"
        )
        ask()

    for number in heeded:
        signal.signal(number, handle)
    return heeded


@contextlib.contextmanager
def asking_on_signals(ask: Callable[[], object]) -> Iterator[None]:
    """`ask_on_signals` for the length of a block."""
    earlier = ask_on_signals(ask)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
