"""System calls that fail in passing, as those of an NFS do."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dalle2_train.storage import retry


def retry_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a millisecond, a budget of a fifth of a second."""
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.2)


def fail_in_passing(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    times: float,
    before: Callable[..., Any] = lambda *_: None,
    code: int = errno.ESTALE,
    under: Path | None = None,
) -> list[int]:
    """`os.NAME` raises at its first `times` calls, on paths below `under` alone, after it has called `before` with
    its arguments. The list grows by an element for each failure."""
    real, failures = getattr(os, name), []

    def call(*arguments: Any, **options: Any) -> Any:
        is_meant = under is None or str(arguments[0]).startswith(str(under))
        if len(failures) < times and is_meant:
            failures.append(code)
            before(*arguments)
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, call)
    return failures
