"""A folder to an object store, where an upload that was interrupted is taken up again.

Beside the files lies a marker as long as the upload is unfinished: it says what is being uploaded, file by file. An
object is there whole or not at all, so those that the marker names and that are there need no second upload.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.errors import InputError

MARKER = "unfinished_upload.json"


def check_goes_on(to: str, about: Mapping[str, Any]) -> None:
    """InputError unless all that is at `to` is of an unfinished upload of `about`; an empty `to` will do."""
    there = _names_at(to)
    if not there:
        return
    found = _unfinished(to)
    if found is None or not there <= {*found["files"], MARKER}:
        raise InputError(f"{to}: something is there already; give a new or empty folder")
    if found["about"] != about:
        raise InputError(
            f"{to}: the unfinished upload of another export is there; remove it, or give a new folder"
        )


def upload(folder: Path, to: str, last: str, about: Mapping[str, Any]) -> None:
    """Uploads the files of `folder`, `last` after all others; of an earlier upload of `about` what is the same is kept
    and what is not is removed. Errors: as `check_goes_on`."""
    check_goes_on(to, about)
    digests = {name: storage.sha256_file(folder / name) for name in file_names(folder)}
    done = _uploaded(to, folder, digests)
    for name in _names_at(to) - {*done, MARKER}:
        storage.remove(storage.join(to, name))
    storage.publish_json(storage.join(to, MARKER), {"about": dict(about), "files": digests})
    for name in sorted(digests.keys() - done, key=lambda name: (name == last, name)):
        storage.publish_file(folder / name, storage.join(to, name))
    finish(to)


def _uploaded(to: str, folder: Path, digests: Mapping[str, str]) -> set[str]:
    """The files of `folder` that are at `to` already."""
    found = _unfinished(to) or {"files": {}}
    same = [name for name, digest in digests.items() if found["files"].get(name) == digest]
    there = storage.stats([storage.join(to, name) for name in same])
    sizes = {name: stat.size for name, stat in zip(same, there.values(), strict=True) if stat is not None}
    return {name for name, size in sizes.items() if size == (folder / name).stat().st_size}


def finish(to: str) -> None:
    """Removes the marker, which an upload leaves that was interrupted when all else was done."""
    if storage.local_path(to) is None:
        storage.remove(storage.join(to, MARKER))


def file_names(folder: Path) -> list[str]:
    """The files under `folder`, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _names_at(to: str) -> set[str]:
    home = storage.absolute(to).rstrip("/") + "/"
    return {uri.removeprefix(home) for uri in storage.list_files(to)}


def _unfinished(to: str) -> dict[str, Any] | None:
    """The marker; None where there is none."""
    uri = storage.join(to, MARKER)
    found = storage.read_json(uri) if storage.exists(uri) else None
    is_ours = isinstance(found, dict) and isinstance(found.get("files"), dict) and "about" in found
    return found if is_ours else None
