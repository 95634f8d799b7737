"""Shard sets with something wrong in them: how they are made.

Every set has two shards of six samples with img2dataset's stats and parquet beside them; the second one is spoilt.
The tars are made by the standard library's tarfile.
"""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIDE = 16
PER_SHARD = 6
SECOND = "00001.tar"
BAD = "000010003"
"""The key of the sample that is spoilt: three of its shard come before it, two after."""
BLOCK = 512
OF_CAPTIONS = ("no_caption", "broken_caption")

Entry = tuple[tarfile.TarInfo, bytes]
Infos = dict[str, tarfile.TarInfo]


@dataclass
class Spec:
    """The second shard, before it is written."""

    folder: Path
    samples: dict[str, dict[str, bytes]]
    entries: Callable[[list[Entry]], list[Entry]] = lambda entries: entries
    """Changes the members."""
    tar: Callable[[bytes], bytes] = lambda data: data
    """Changes the file."""
    promised: int = PER_SHARD
    beside: dict[str, bytes] = field(default_factory=dict)
    """Other bytes for the files beside the tar."""

    @property
    def bad(self) -> dict[str, bytes]:
        """The members of the sample that is spoilt."""
        return self.samples[BAD]


Spoil = Callable[[Spec], None]


@dataclass(frozen=True)
class Case:
    """Of the set's samples `expected` were promised, and `delivered` are whole."""

    name: str
    spoil: Spoil
    faults: frozenset[tuple[str | None, str]]
    """(key, kind) in the second shard that `shards check` must find; none: the set only looks odd."""
    delivered: int
    expected: int = 2 * PER_SHARD

    @property
    def uncaptioned(self) -> int:
        """Samples that lack a caption and nothing else: whole to a training that reads none."""
        return sum(key is not None and kind in OF_CAPTIONS for key, kind in self.faults)

    def build(self, folder: Path) -> None:
        """Write the set into `folder`."""
        folder.mkdir()
        _write("00000", Spec(folder, _samples(0)))
        spec = Spec(folder, _samples(1))
        self.spoil(spec)
        _write("00001", spec)


def _samples(shard: int) -> dict[str, dict[str, bytes]]:
    found = {}
    for number in range(PER_SHARD):
        key = f"{shard:05d}{number:04d}"
        record = {
            "key": key,
            "url": f"http://a.example/{key}.jpg",
            "width": SIDE,
            "height": SIDE,
            "sha256": "0",
        }
        found[key] = {"jpg": picture(), "txt": f"sample {key}".encode(), "json": json.dumps(record).encode()}
    return found


def _write(name: str, spec: Spec) -> None:
    entries = spec.entries(
        [
            member(f"{key}.{extension}", data)
            for key, members in spec.samples.items()
            for extension, data in members.items()
        ]
    )
    table = io.BytesIO()
    keys = [f"{name}{number:04d}" for number in range(spec.promised)]
    pq.write_table(pa.table({"key": keys, "status": ["success"] * spec.promised}), table)
    files = {
        f"{name}.tar": spec.tar(tar_of(entries)),
        f"{name}_stats.json": json.dumps({"count": spec.promised, "successes": spec.promised}).encode(),
        f"{name}.parquet": table.getvalue(),
    } | spec.beside
    for file, data in files.items():
        (spec.folder / file).write_bytes(data)


def picture(mode: str = "RGB", kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a small picture."""
    ramp = np.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE)
    if mode == "I;16":
        image = Image.fromarray((ramp * 257).astype(np.uint16))
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert("RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def member(name: str, data: bytes = b"", **fields: Any) -> Entry:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for name_of_field, value in fields.items():
        setattr(info, name_of_field, value)
    return info, data


def tar_of(entries: list[Entry]) -> bytes:
    """A whole tar of them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def infos(tar: bytes) -> Infos:
    """What its headers say, by name."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {info.name: info for info in opened}


def end_of(info: tarfile.TarInfo) -> int:
    """Where the next member begins."""
    return info.offset_data + -(-info.size // BLOCK) * BLOCK


def pax_header(records: dict[str, str], claimed: int | None = None) -> bytes:
    """A PAX header for the member that follows; `claimed`: the size that it gives of itself."""
    body = b""
    for name, value in records.items():
        rest = f" {name}={value}\n"
        length = len(rest)
        while length != len(str(length)) + len(rest):
            length = len(str(length)) + len(rest)
        body += f"{length}{rest}".encode()
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(body) if claimed is None else claimed
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % BLOCK)
