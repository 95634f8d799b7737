"""The members of a sample, whatever the tar's dialect: as tarfile and webdataset read them."""

import io
import tarfile

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from dalle2_train.data import limits
from dalle2_train.data.shards import tarspan
from dalle2_train.data.shards.tarspan import members

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
FILES = {"jpg": b"\xff" * 1000, "txt": b"a caption", "json": b"{}", "empty.npy": b"", "B.NPY": bytes(512)}
NAMES = {
    "short": "000000001",
    "a hundred characters": "n" * 90,
    "in folders": "a/b.c/000000001",
    "too long for a header": "folder/" * 20 + "0",
    "not ASCII": "ключ",
}


def span(name: str, dialect: int, files: dict[str, bytes] = FILES) -> bytes:
    """What the members take in a tar, without its end."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=dialect) as tar:
        for extension, data in files.items():
            info = tarfile.TarInfo(f"{name}.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        return stream.getvalue()[: tar.offset]


def by_webdataset(data: bytes) -> dict[str, bytes]:
    (sample,) = group_by_keys(tar_file_expander([{"url": "x.tar", "stream": io.BytesIO(data + bytes(1024))}]))
    return {name: value for name, value in sample.items() if not name.startswith("__")}


@pytest.mark.parametrize("dialect", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_members_are_those_that_webdataset_finds(name: str, dialect: str):
    data = span(NAMES[name], FORMATS[dialect])
    assert members(data) == by_webdataset(data) == {key.lower(): value for key, value in FILES.items()}


def test_plain_headers_do_not_need_tarfile(monkeypatch):
    monkeypatch.setattr(tarspan, "_members_by_tarfile", None)
    assert len(members(span("000000001", tarfile.GNU_FORMAT))) == len(FILES)


def test_links_and_folders_are_no_members():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("0.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        data = stream.getvalue()[: tar.offset]
    assert members(data + span("0", tarfile.USTAR_FORMAT, {"txt": b"alone"})) == {"txt": b"alone"}


def test_sizes_in_base_256_are_read():
    data = bytearray(span("0", tarfile.GNU_FORMAT, {"txt": b"caption"}))
    data[124:136] = b"\x80" + (7).to_bytes(11, "big")
    header = bytearray(data[:512])
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
    assert members(bytes(header) + bytes(data[512:])) == {"txt": b"caption"}


def test_members_that_are_too_large_are_left_out(monkeypatch):
    monkeypatch.setattr(limits, "MEMBER_BYTES", 999)
    assert "jpg" not in members(span("0", tarfile.GNU_FORMAT))
