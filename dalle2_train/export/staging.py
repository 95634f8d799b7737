"""A folder is made out of sight and appears whole, or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export.upload import check_goes_on, upload


def check_free(to: str, about: Mapping[str, Any]) -> None:
    """InputError when something lies at `to` that is no unfinished upload of `about`, or nothing can be written."""
    local = storage.local_path(to)
    if local is None:
        check_goes_on(to, about)
        storage.check_writable(to)
        return
    if local.is_file() or (local.is_dir() and any(local.iterdir())):
        raise InputError(f"{to}: something is there already; give a new or empty folder")
    # A folder that is not there yet is tried by its nearest ancestor, so that a refusal leaves nothing behind.
    while not local.exists():
        local = local.parent
    storage.check_writable(str(local))


@contextlib.contextmanager
def staged(to: str, *, last: str, about: Mapping[str, Any]) -> Iterator[Path]:
    """A local folder to write into; when the block ends well, its files are at `to`, and otherwise nothing is.

    On a local file system the folder is renamed. To an object store the files are uploaded, `last` after all others;
    an upload that is interrupted goes on when the same is staged again. about: what tells it from other exports.
    """
    target = storage.local_path(to)
    if target is None:
        with storage.local_staging() as folder:
            yield folder
            upload(folder, to, last, about)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        # mkdtemp's folder is its owner's alone.
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        os.rename(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def confirm(to: str, digests: Mapping[str, str]) -> None:
    """An earlier export (name → SHA-256) is there as it was, or RefusedError."""
    for name, expected in digests.items():
        uri = storage.join(to, name)
        if not storage.exists(uri) or storage.sha256_file(uri) != expected:
            raise RefusedError(f"{to} holds this export, but {name} is damaged or gone; remove the folder and "
                               "export again")  # fmt: skip
