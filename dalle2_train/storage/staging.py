"""Temporary places on local disks, and what is told where nothing can be written."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dalle2_train.errors import InputError

TEMPORARY = ".partial-"
"""Names of what is not whole yet begin with it."""


@contextlib.contextmanager
def local_staging(beside: Path | None = None) -> Iterator[Path]:
    """A temporary local folder that is gone afterwards; `beside` puts it on that folder's disk, which has the room."""
    if beside is not None:
        with unwritable_is_input(str(beside)):
            beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=beside) as folder:
        yield Path(folder)


@contextlib.contextmanager
def unwritable_is_input(uri: str) -> Iterator[None]:
    """Errors that say that `uri` cannot be written become InputErrors."""
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise _unwritable(uri, error.strerror) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise _unwritable(uri, error.strerror) from error
        raise


def _unwritable(uri: str, why: str | None) -> InputError:
    return InputError(f"{uri}: cannot be written ({why}); give a folder that you may write to")
