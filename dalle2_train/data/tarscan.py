"""Walks a tar strictly: `tarfile` and webdataset end quietly where a tar is cut or a header is damaged."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from dalle2_train.data.naming import key_and_extension

_BLOCK = 512


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

    def read(self, stream: IO[bytes], extension: str, limit: int) -> bytes | None:
        """The member's bytes; None when it isn't there or is larger than `limit`."""
        for member in self.members:
            if member.extension == extension and member.size <= limit:
                stream.seek(member.start)
                return stream.read(member.size)
        return None


class TarScan(NamedTuple):
    """What a tar holds; `problem` is None, "truncated" or "broken_header"."""

    samples: tuple[Sample, ...]
    problem: str | None


def scan(path: Path) -> TarScan:
    """The samples of the tar at `path`, in order, up to the first damage."""
    members: list[tuple[str, Member, int]] = []
    with path.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for info in _regular_files(tar):
                    key, extension = key_and_extension(info.name)
                    if key and extension:
                        member = Member(extension.lower(), info.offset_data, info.size)
                        members.append((key, member, info.offset))
                problem = _problem_at_end(stream, tar.offset)  # pyright: ignore[reportAttributeAccessIssue]
        except (tarfile.TarError, ValueError, EOFError) as error:
            cut = "unexpected end" in str(error) or "empty file" in str(error) or "truncated" in str(error)
            problem = "truncated" if cut else "broken_header"
    return TarScan(tuple(_group(members)), problem)


def _regular_files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for info in tar:
        if info.isreg():
            yield info
        tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - else tarfile keeps every header


def _problem_at_end(stream: IO[bytes], offset: int) -> str | None:
    """A whole tar ends with two blocks of zeros, at the place where the walk stopped."""
    stream.seek(offset)
    tail = stream.read(2 * _BLOCK)
    if any(tail[:_BLOCK]) and len(tail) >= _BLOCK:
        return "broken_header"
    return "truncated" if len(tail) < 2 * _BLOCK or any(tail) else None


def _group(members: list[tuple[str, Member, int]]) -> Iterator[Sample]:
    start = 0
    for i in range(1, len(members) + 1):
        if i == len(members) or members[i][0] != members[start][0]:
            key, _, offset = members[start]
            last = members[i - 1][1]
            end = last.start + -(-last.size // _BLOCK) * _BLOCK
            yield Sample(key, offset, end - offset, tuple(member for _, member, _ in members[start:i]))
            start = i
