"""The members of one sample from its bytes in the tar, which its index has vouched for."""

from __future__ import annotations

import io
import tarfile

from dalle2_train.data import limits
from dalle2_train.data.shards.naming import key_and_extension

_BLOCK = 512
_PLAIN_FILES = (b"0", b"\0")


def members(span: bytes) -> dict[str, bytes]:
    """By extension; what is no file of a sample, or larger than members may be, is left out."""
    found = _plain_members(span)
    return _members_by_tarfile(span) if found is None else found


def _plain_members(span: bytes) -> dict[str, bytes] | None:
    """What `tarfile` finds, in a fifth of its time; None where a header is more than a short name and a size."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(span):
        header = span[place : place + _BLOCK]
        kind, digits, prefix = header[156:157], header[124:136].rstrip(b" \0"), header[345:346]
        if kind not in _PLAIN_FILES or not digits.isdigit() or prefix != b"\0":
            return None
        start, size = place + _BLOCK, int(digits, 8)
        _add(found, header[:100].partition(b"\0")[0].decode("utf-8", "surrogateescape"), size, span, start)
        place = start + -(-size // _BLOCK) * _BLOCK
    return found


def _members_by_tarfile(span: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(span), mode="r:") as tar:
        for info in tar:
            if info.isreg():
                _add(found, info.name, info.size, span, info.offset_data)
    return found


def _add(found: dict[str, bytes], name: str, size: int, span: bytes, start: int) -> None:
    _, extension = key_and_extension(name)
    if extension and size <= limits.of_member(extension.lower()):
        found[extension.lower()] = span[start : start + size]
