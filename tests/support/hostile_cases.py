"""Everything that a shard set was ever found to hold, and what becomes of it."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from hostile import BAD, BLOCK, Case, Entry, Infos, Spec, Spoil, end_of, infos, member, pax_header, picture
from PIL import Image

EXECUTED = "executed"
"""The folder that a payload makes beside the set where it is run."""


# How a set is spoilt ---------------------------------------------------------------------------------------------


def cut(place: Callable[[Infos], int], close: bool = False) -> Spoil:
    """The tar ends at `place`; `close`: with the zeros of a whole one's end."""
    return file(lambda data: data[: place(infos(data))] + bytes(2 * BLOCK if close else 0))


def overwrite(place: Callable[[Infos], int], new: bytes) -> Spoil:
    def change(data: bytes) -> bytes:
        start = place(infos(data))
        return data[:start] + new + data[start + len(new) :]

    return file(change)


def file(change: Callable[[bytes], bytes]) -> Spoil:
    return lambda spec: setattr(spec, "tar", change)


def insert(header: bytes) -> Spoil:
    """Before the header of the bad sample's caption."""
    return file(lambda data: _inserted(data, infos(data)[f"{BAD}.txt"].offset, header))


def _inserted(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place:]


def renamed(to: str) -> Spoil:
    """All members of the bad sample."""

    def entries(old: list[Entry]) -> list[Entry]:
        return [member(info.name.replace(BAD, to), data) for info, data in old]

    return lambda spec: setattr(spec, "entries", entries)


def caption(change: Callable[[Entry], list[Entry]]) -> Spoil:
    """Other members for the bad sample's caption."""

    def entries(old: list[Entry]) -> list[Entry]:
        return [new for entry in old for new in (change(entry) if entry[0].name == f"{BAD}.txt" else [entry])]

    return lambda spec: setattr(spec, "entries", entries)


def special(kind: bytes, **fields: Any) -> Spoil:
    return caption(lambda entry: [member(entry[0].name, type=kind, **fields)])


def put(extension: str, data: bytes) -> Spoil:
    return lambda spec: spec.bad.update({extension: data})


def drop(extension: str) -> Spoil:
    return lambda spec: spec.bad.pop(extension)


def image(extension: str, data: bytes) -> Spoil:
    """In place of the bad sample's picture."""

    def spoil(spec: Spec) -> None:
        del spec.bad["jpg"]
        spec.bad[extension] = data

    return spoil


def beside(name: str, data: bytes) -> Spoil:
    return lambda spec: spec.beside.update({name: data})


def promising(count: int) -> Spoil:
    return lambda spec: setattr(spec, "promised", count)


def payload(extension: str) -> Spoil:
    """A member that makes a folder when it is unpickled."""

    def spoil(spec: Spec) -> None:
        spec.bad[extension] = pickle.dumps(Payload(str(spec.folder.parent / EXECUTED)))

    return spoil


class Payload:
    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.place,)


# What is in a sample ---------------------------------------------------------------------------------------------


def png(width: int, height: int, colour: int, depth: int = 8, channels: int = 1) -> bytes:
    """One of zeros, of any size; the rows are compressed as they come."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * channels * depth // 8)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _spoilt(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return picture(exif=exif)


def _large_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.new("CMYK", (7_000, 7_000), "teal").save(stream, "JPEG", progressive=True)
    return stream.getvalue()


_NESTED = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
_ODD = json.dumps(
    {"url": "\ud800", "split": "\udfff", "width": 10**400, "height": "tall", "nsfw": [1]}
).encode()


def _last(at: Infos) -> int:
    return max(end_of(info) for info in at.values())


_BARE = (BAD, "no_caption")
"""What is found of a sample that lies whole before the damage but for its caption."""

# (name, how the set is spoilt, (key, kind) that `shards check` must find, whole samples)
_HOSTILE: list[tuple[str, Spoil, set[tuple[str | None, str]], int]] = [
    ("cut in data", cut(lambda at: at[f"{BAD}.jpg"].offset_data + 100), {(None, "truncated")}, 9),
    ("cut in a header", cut(lambda at: at[f"{BAD}.txt"].offset + 100), {(None, "truncated"), _BARE}, 9),
    ("cut at a member's boundary", cut(lambda at: at[f"{BAD}.txt"].offset), {(None, "truncated"), _BARE}, 9),
    ("cut at a sample's boundary", cut(lambda at: at[f"{BAD}.jpg"].offset), {(None, "truncated")}, 9),
    ("cut in the closing zeros", cut(lambda at: _last(at) + BLOCK), {(None, "truncated")}, 12),
    ("cut before the closing zeros", cut(_last), {(None, "truncated")}, 12),
    ("cut at a member's boundary and closed", cut(lambda at: at[f"{BAD}.txt"].offset, close=True),
     {(None, "count"), _BARE}, 9),
    ("cut at a sample's boundary and closed", cut(lambda at: at[f"{BAD}.jpg"].offset, close=True),
     {(None, "count"), (BAD, "missing")}, 9),
    ("flipped header byte", overwrite(lambda at: at[f"{BAD}.jpg"].offset + 3, b"\xff"), {(None, "broken_header")}, 9),
    ("flipped size", overwrite(lambda at: at[f"{BAD}.jpg"].offset + 130, b"7"), {(None, "broken_header")}, 9),
    ("flipped first header", overwrite(lambda at: 3, b"\xff"), {(None, "broken_header")}, 6),
    ("zeroed header", overwrite(lambda at: at[f"{BAD}.jpg"].offset, bytes(BLOCK)), {(None, "broken_header")}, 9),
    ("two zeroed blocks", overwrite(lambda at: at[f"{BAD}.jpg"].offset, bytes(2 * BLOCK)),
     {(None, "broken_header")}, 9),
    ("zeroed first header", overwrite(lambda at: 0, bytes(BLOCK)), {(None, "broken_header")}, 6),
    ("short web page", file(lambda _: b"<!DOCTYPE html><title>403 Forbidden</title>"), {(None, "not_a_tar")}, 6),
    ("long web page", file(lambda _: b"<!DOCTYPE html>" + b"<p>Not found</p>" * 400), {(None, "not_a_tar")}, 6),
    ("no bytes", file(lambda _: b""), {(None, "empty")}, 6),
    ("zeros alone", file(lambda data: bytes(len(data))), {(None, "empty")}, 6),
    ("noise", file(lambda data: np.random.default_rng(0).bytes(len(data))), {(None, "not_a_tar")}, 6),
    ("gzip", file(gzip.compress), {(None, "not_a_tar")}, 6),
    ("another tar behind the end", file(lambda data: data + data), {(None, "broken_header")}, 12),
    ("member of an exabyte", insert(pax_header({"size": str(1 << 60)})), {(None, "truncated")}, 9),
    ("member of a yottabyte", insert(pax_header({"size": str(1 << 80)})), {(None, "truncated")}, 9),
    ("member of less than nothing", insert(pax_header({"size": "-5120"})), {(None, "broken_header"), _BARE}, 9),
    ("header of gigabytes", insert(pax_header({"comment": "c"}, claimed=8**11 - 1)),
     {(None, "broken_header"), _BARE}, 9),
    ("headers without end", insert(pax_header({"comment": "c"}) * 3000), {(None, "broken_header"), _BARE}, 9),
    ("absolute path", renamed(f"/etc/{BAD}"), {(f"/etc/{BAD}", "bad_name")}, 11),
    ("path that leads upwards", renamed(f"../../{BAD}"), {(f"../../{BAD}", "bad_name")}, 11),
    ("name that is no UTF-8", renamed(f"\udcff{BAD}"), {(f"\\udcff{BAD}", "bad_name")}, 11),
    ("endless name", renamed("n" * 5000 + f"/{BAD}"), {(f"{'n' * 1014}/{BAD}", "bad_name")}, 11),
    ("symbolic link", special(tarfile.SYMTYPE, linkname="/etc/passwd"), {(BAD, "special_member")}, 11),
    ("hard link", special(tarfile.LNKTYPE, linkname="/etc/passwd"), {(BAD, "special_member")}, 11),
    ("device", special(tarfile.CHRTYPE, devmajor=1, devminor=5), {(BAD, "special_member")}, 11),
    ("named pipe", special(tarfile.FIFOTYPE), {(BAD, "special_member")}, 11),
    ("member that comes twice", caption(lambda entry: [entry, entry]), {(BAD, "duplicate")}, 11),
    ("member over the cap", lambda spec: spec.bad.update(jpg=bytes((1 << 26) + 1)), {(BAD, "too_large")}, 11),
    ("key that comes again", renamed("000010001"), {("000010001", "duplicate")}, 11),
    ("key that comes again at once", renamed("000010002"), {("000010002", "duplicate"), (None, "count")}, 10),
    ("key of another shard", renamed("000000003"), {("000000003", "duplicate")}, 12),
    ("truncated JPEG", image("jpg", picture()[:-100]), {(BAD, "broken_image")}, 11),
    ("JPEG of its first bytes", image("jpg", picture()[:20]), {(BAD, "broken_image")}, 11),
    ("PNG with a bad checksum", image("png", _spoilt(picture(kind="PNG"), 45)), {(BAD, "broken_image")}, 11),
    ("decompression bomb", image("png", png(11_700, 11_700, colour=0, depth=1)), {(BAD, "broken_image")}, 11),
    ("text for a picture", image("jpg", b"<html>not found</html>"), {(BAD, "broken_image")}, 11),
    ("picture of no bytes", image("jpg", b""), {(BAD, "broken_image")}, 11),
    ("format that is not read", image("jpg", picture(kind="BMP")), {(BAD, "broken_image")}, 11),
    ("wrong extension", image("jpg", picture(kind="PNG")), {(BAD, "wrong_extension")}, 11),
    ("extension that is not read", image("gif", picture(kind="GIF")), {(BAD, "no_image")}, 11),
    ("no picture", drop("jpg"), {(BAD, "no_image")}, 11),
    ("no caption", drop("txt"), {(BAD, "no_caption")}, 11),
    ("empty caption", put("txt", b" \n"), {(BAD, "broken_caption")}, 11),
    ("caption that is no UTF-8", put("txt", b"caf\xe9"), {(BAD, "broken_caption")}, 11),
    ("enormous caption", put("txt", b"word " * 500_000), {(BAD, "too_large")}, 11),
    ("broken JSON", put("json", b'{"key": '), {(BAD, "broken_record")}, 11),
    ("JSON that is no object", put("json", b"[1, 2]"), {(BAD, "broken_record")}, 11),
    ("JSON nested deeply", put("json", _NESTED), {(BAD, "broken_record")}, 11),
    ("JSON that is no UTF-8", put("json", b'{"url": "\xff"}'), {(BAD, "broken_record")}, 11),
    ("payload in .pyd", payload("pyd"), {(BAD, "pickle")}, 11),
    ("payload in .pkl", payload("pkl"), {(BAD, "pickle")}, 11),
    ("payload in .pickle", payload("pickle"), {(BAD, "pickle")}, 11),
    ("payload in .pth", payload("pth"), {(BAD, "pickle")}, 11),
    ("stats that promise less", beside("00001_stats.json", b'{"successes": 5}'), {(None, "count")}, 12),
    ("broken stats", beside("00001_stats.json", b"{"), {(None, "stats")}, 12),
    ("stats nested deeply", beside("00001_stats.json", _NESTED), {(None, "stats")}, 12),
    ("broken parquet", beside("00001.parquet", b"PAR1"), {(None, "table")}, 12),
]  # fmt: skip

_FINE: list[tuple[str, Spoil]] = [
    ("CMYK", image("jpg", picture("CMYK"))),
    ("grey", image("jpg", picture("L"))),
    ("palette", image("png", picture("P", "PNG"))),
    ("transparency", image("png", picture("RGBA", "PNG"))),
    ("16 bit", image("png", picture("I;16", "PNG"))),
    ("turned by EXIF", image("jpg", _turned())),
    ("animated PNG", image("png", _animated("PNG"))),
    ("animated WebP", image("webp", _animated("WEBP"))),
    ("odd record", put("json", _ODD)),
    ("names in capitals", caption(lambda entry: [member(f"{BAD}.TXT", entry[1])])),
    ("a picture as large as is allowed", image("png", png(7_000, 7_000, colour=6, channels=4))),
    ("a progressive CMYK as large as is allowed", image("jpg", _large_jpeg())),
    ("16 bit as large as is allowed", image("png", png(7_000, 7_000, colour=0, depth=16))),
]

CASES = [
    *(Case(name, spoil, frozenset(faults), delivered) for name, spoil, faults, delivered in _HOSTILE),
    Case(
        "stats that promise more",
        promising(8),
        frozenset({(None, "count"), ("000010007", "missing")}),
        12,
        14,
    ),
    *(Case(name, spoil, frozenset(), 12) for name, spoil in _FINE),
]
