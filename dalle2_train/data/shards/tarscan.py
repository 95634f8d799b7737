"""Walks a tar strictly: `tarfile` and webdataset end quietly where a tar is cut or a header is damaged."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import IO, NamedTuple, cast

from dalle2_train.data import limits
from dalle2_train.data.shards.naming import key_and_extension

_BLOCK = 512
_CHUNK = 1 << 20
_PICKLES = frozenset(("pyd", "pkl", "pickle", "pt", "pth"))


class Member(NamedTuple):
    """One file of a sample: where its bytes lie in the tar."""

    extension: str
    start: int
    size: int


class Sample(NamedTuple):
    """Neighbouring members with one key; `offset` and `length` span their headers too."""

    key: str
    offset: int
    length: int
    members: tuple[Member, ...]
    fault: str | None = None
    """What its headers alone show to be wrong: one of SAMPLE_KINDS."""

    def read(self, stream: IO[bytes], extension: str) -> bytes | None:
        """The member's bytes; None when it isn't there or is larger than members may be."""
        for member in self.members:
            if member.extension == extension and 0 <= member.size <= limits.of_member(extension):
                stream.seek(member.start)
                return stream.read(member.size)
        return None

    def crc32(self, stream: IO[bytes]) -> int:
        """Of all its bytes in the tar, headers included."""
        stream.seek(self.offset)
        crc32, left = 0, self.length
        while left > 0 and (chunk := stream.read(min(left, _CHUNK))):
            crc32, left = zlib.crc32(chunk, crc32), left - len(chunk)
        return crc32


class TarScan(NamedTuple):
    """What a tar holds; `problem` is None, or the one of SHARD_KINDS that ended the walk."""

    samples: tuple[Sample, ...]
    problem: str | None

    def problem_of(self, promised: int | None) -> str | None:
        """`problem` of a shard of `promised` samples: where every download failed, an empty one is whole."""
        return None if self.problem == "empty" and promised == 0 else self.problem


def scan(path: Path) -> TarScan:
    """The samples of the tar at `path`, in order, up to the first damage."""
    entries: list[_Entry] = []
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            with tarfile.open(fileobj=cast(IO[bytes], _Headers(stream, size)), mode="r:") as tar:
                for info, end in _members(tar):
                    if (entry := _entry(info, end)) is not None:
                        entries.append(entry)
                problem = _problem_at_end(stream, _offset(tar))
        except (tarfile.TarError, ValueError, EOFError, RecursionError, OverflowError) as error:
            problem = _problem_of(stream, size, str(error))
    if not entries and problem is None:
        problem = "empty"
    grouped = groupby(entries, attrgetter("key"))
    return TarScan(tuple(_sample(list(group), size) for _, group in grouped), problem)


class _Entry(NamedTuple):
    """A member on its way into a sample; one that is no plain file has none."""

    key: str
    member: Member | None
    offset: int
    end: int
    fault: str | None


class _Headers:
    """The stream that tarfile walks: a header that claims gigabytes of itself is not believed."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._size = stream, size
        self.tell = stream.tell

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= limits.HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._stream.read(count)

    def seek(self, position: int) -> int:
        if position > self._size:
            raise tarfile.ReadError("unexpected end of data")
        return self._stream.seek(position)


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """(member, where the next one begins), folders left out."""
    for info in tar:
        end = _offset(tar)
        # Sizes below zero lead tarfile backwards, forever.
        if info.size < 0 or end <= info.offset:
            raise tarfile.ReadError(f"a member of {info.size} bytes")
        if not info.isdir():
            yield info, end
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - else tarfile keeps every header


def _offset(tar: tarfile.TarFile) -> int:
    return tar.offset  # pyright: ignore[reportAttributeAccessIssue] - not in the stubs


def _entry(info: tarfile.TarInfo, end: int) -> _Entry | None:
    """None for names that belong to no sample, as in webdataset."""
    name = info.name.encode("utf-8", "backslashreplace").decode()
    key, extension = key_and_extension(name)
    if not key or not extension:
        return None
    key, extension = key[-limits.NAME_CHARACTERS :], extension.lower()
    if not info.isreg() or info.issparse():
        return _Entry(key, None, info.offset, end, "special_member")
    fault = None
    is_long = len(name) > limits.NAME_CHARACTERS
    if is_long or name != info.name or name.startswith("/") or ".." in name.split("/"):
        fault = "bad_name"
    elif extension.rpartition(".")[2] in _PICKLES:
        fault = "pickle"
    elif info.size > limits.of_member(extension):
        fault = "too_large"
    return _Entry(key, Member(extension, info.offset_data, info.size), info.offset, end, fault)


def _sample(entries: list[_Entry], size: int) -> Sample:
    """The sample that neighbouring members of a tar of `size` bytes form."""
    members = tuple(entry.member for entry in entries if entry.member is not None)
    offset, end = entries[0].offset, entries[-1].end
    fault = next((entry.fault for entry in entries if entry.fault is not None), None)
    if end > size:
        fault = "truncated"
    elif end - offset > limits.SAMPLE_BYTES:
        fault = fault or "too_large"
    elif max(Counter(member.extension for member in members).values(), default=0) > 1:
        fault = fault or "duplicate"
    return Sample(entries[0].key, offset, min(end, size) - offset, members, fault)


def _problem_at_end(stream: IO[bytes], offset: int) -> str | None:
    """A whole tar ends with two blocks of zeros, at the place where the walk stopped, and nothing follows."""
    stream.seek(offset)
    closing = stream.read(2 * _BLOCK)
    if len(closing) < _BLOCK or (len(closing) < 2 * _BLOCK and not closing.strip(b"\0")):
        return "truncated"
    while closing:
        if closing.strip(b"\0"):
            return "broken_header"
        closing = stream.read(_CHUNK)
    return None


def _problem_of(stream: IO[bytes], size: int, error: str) -> str:
    """Why tarfile gave up with `error`."""
    stream.seek(0)
    first = stream.read(_BLOCK)
    if size == 0:
        return "empty"
    if not _is_header(first):
        return "not_a_tar"
    return "truncated" if "unexpected end" in error or "truncated" in error else "broken_header"


def _is_header(first: bytes) -> bool:
    """Does a tar begin so, whole or not? Names are followed by zeros, and most tars say at once what they are."""
    if len(first) < _BLOCK or first[257:262] == b"ustar":
        return b"\0" in first
    try:
        tarfile.TarInfo.frombuf(first, tarfile.ENCODING, "surrogateescape")
    except tarfile.TarError:
        return False
    return True
