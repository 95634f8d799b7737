"""A folder is made out of sight and appears whole, or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dalle2_train import storage
from dalle2_train.errors import InputError, RefusedError


def check_free(to: str) -> None:
    """InputError when something lies at `to` already, or nothing can be written there."""
    local = storage.local_path(to)
    taken = local is not None and (local.is_file() or (local.is_dir() and any(local.iterdir())))
    if taken or storage.list_files(to):
        raise InputError(f"{to}: something is there already; give a new or empty folder")
    # A folder that is not there yet is tried by its nearest ancestor, so that a refusal leaves nothing behind.
    while local is not None and not local.exists():
        local = local.parent
    storage.check_writable(to if local is None else str(local))


@contextlib.contextmanager
def staged(to: str, *, last: str) -> Iterator[Path]:
    """A local folder to write into; when the block ends well, its files are at `to`, and otherwise nothing is.

    On a local file system the folder is renamed. On an object store the files are uploaded, `last` after all others.
    """
    target = storage.local_path(to)
    if target is None:
        with storage.local_staging() as folder:
            yield folder
            _upload(folder, to, last)
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


def refuse_damage(to: str, digests: Mapping[str, str]) -> None:
    """RefusedError where a file of an earlier export (name → SHA-256) is not there as it was."""
    for name, expected in digests.items():
        uri = storage.join(to, name)
        if not storage.exists(uri) or storage.sha256_file(uri) != expected:
            raise RefusedError(f"{to} holds this export, but {name} is damaged or gone; remove the folder and "
                               "export again")  # fmt: skip


def file_names(folder: Path) -> list[str]:
    """The files under `folder`, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _upload(folder: Path, to: str, last: str) -> None:
    for name in sorted(file_names(folder), key=lambda name: name == last):
        storage.publish_file(folder / name, storage.join(to, name))
