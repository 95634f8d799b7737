"""Which shards a URI means (a folder, one tar, or a pattern), and in which folder what we know of them is kept."""

from __future__ import annotations

import hashlib
import re

from braceexpand import braceexpand

from dalle2_train import storage
from dalle2_train.errors import InputError
from dalle2_train.storage import Stat

_PATTERN = re.compile(r"[*?\[{]")


def shard_uris(uri: str) -> list[str]:
    """The tars that `uri` means, sorted: those directly in a folder, `…/{00000..00099}.tar`, `…/*.tar`, or one tar.

    A list in braces is not looked up: a shard that it names and that is not there is a fault, not another set.
    """
    if _is_pattern(uri):
        parts = [storage.absolute(part) for part in braceexpand(uri)]
        found = [tar for part in parts for tar in (storage.glob(part) if _PATTERN.search(part) else [part])]
        return sorted(set(found))
    if uri.endswith(".tar"):
        return [storage.absolute(uri)]
    _refuse_file(uri)
    return list(storage.list_folder(uri, ".tar"))


def listing(uri: str) -> dict[str, Stat | None]:
    """The tars that `uri` means, as the storage tells of them now; None of one that is named and is not there."""
    if is_folder(uri):
        return {**storage.list_folder(uri, ".tar")}
    return storage.stats(shard_uris(uri))


def is_folder(uri: str) -> bool:
    """Does `uri` mean a folder, and no tar nor a pattern?"""
    return not _is_pattern(uri) and not uri.endswith(".tar")


def home_of(uri: str) -> str:
    """The folder of the manifest: a folder is its own home; a pattern has one beside its shards."""
    if is_folder(uri):
        _refuse_file(uri)
        return storage.absolute(uri)
    whole = storage.absolute(uri)
    fixed = _PATTERN.split(whole, maxsplit=1)[0].rsplit("/", 1)[0]
    return storage.join(fixed, f"shards-{hashlib.sha256(whole.encode()).hexdigest()[:8]}")


def relative_to(home: str, tar: str) -> str:
    """`tar` as the manifest in `home` names it: the file's name where it lies in that folder, else its whole URI."""
    folder, _, name = tar.rpartition("/")
    return name if folder == home else tar


def _refuse_file(uri: str) -> None:
    """InputError for a file that is no tar, a mixture's among them."""
    if uri.endswith((".yaml", ".yml")):
        raise InputError(f"{uri}: is a mixture, which training alone reads; give its sources one by one")
    path = storage.local_path(uri)
    if path is not None and path.is_file():
        raise InputError(
            f"{uri}: is a file and no .tar; give a folder of shards, a tar, or a pattern of tars"
        )


def _is_pattern(uri: str) -> bool:
    return _PATTERN.search(uri) is not None
