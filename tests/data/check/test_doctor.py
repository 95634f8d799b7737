"""The check: a good set has no fault, and no damage that we can think of goes unseen."""

import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from dalle2_train.data.check.doctor import check
from dalle2_train.data.faults import Fault
from dalle2_train.data.shards.index import index
from dalle2_train.errors import InputError

MakeSet = Callable[..., str]


def kinds(uri: str) -> set[tuple[str, str | None, str]]:
    return {(fault.shard, fault.key, fault.kind) for fault in check(uri).faults}


def test_a_good_set_has_no_faults(make_set: MakeSet):
    report = check(make_set(25))
    assert report.faults == ()
    assert (report.num_shards, report.num_samples, report.has_manifest) == (3, 25, True)


@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_cut_shard_is_named_wherever_it_is_cut(make_set: MakeSet, with_manifest: bool):
    uri = make_set(25)
    if not with_manifest:
        (Path(uri) / "manifest.json").unlink()
    tar = Path(uri) / "00001.tar"
    data = tar.read_bytes()
    with tarfile.open(tar) as theirs:
        member = theirs.getmembers()[15]
    # In data, in a header, at a member's end, at a sample's end, in the closing zeros, and all of it.
    for cut in (
        len(data) // 2,
        member.offset + 100,
        member.offset,
        member.offset_data + 512,
        len(data) - 10_000,
        0,
    ):
        tar.write_bytes(data[:cut])
        faults = check(uri).faults
        assert "00001.tar" in {fault.shard for fault in faults}, cut
        assert {fault.shard for fault in faults} == {"00001.tar"}


def test_any_flipped_byte_is_seen(make_set: MakeSet):
    uri = make_set(10)
    tar = Path(uri) / "00000.tar"
    data = tar.read_bytes()
    draws = random.Random(0)
    for _ in range(150):
        spoilt = bytearray(data)
        spoilt[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        tar.write_bytes(spoilt)
        assert "00000.tar" in {fault.shard for fault in check(uri).faults}


def test_a_flipped_byte_is_pinned_to_its_sample(make_set: MakeSet):
    uri = make_set(10)
    tar = Path(uri) / "00000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b"number 7")] ^= 1
    tar.write_bytes(data)
    assert kinds(uri) == {("00000.tar", None, "digest"), ("00000.tar", "000000007", "damaged")}


def rewrite(tar: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """Writes the tar again, its members changed or left out."""

    with tar.open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}])))
    with tar.open("wb") as stream, TarWriter(stream, encoder=False) as writer:
        for sample in samples:
            key = sample["__key__"]
            kept = {"__key__": key}
            for extension, data in sample.items():
                if not extension.startswith("__"):
                    changed = change(f"{key}.{extension}", data)
                    if changed is not None:
                        kept["__key__"] = changed[0].split(".", 1)[0]
                        kept[changed[0].split(".", 1)[1]] = changed[1]
            if len(kept) > 1:
                writer.write(kept)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("000000003.txt", None, "no_caption"),
        ("000000003.txt", b"", "broken_caption"),
        ("000000003.txt", b"\xff\xfe", "broken_caption"),
        ("000000003.png", None, "no_image"),
        ("000000003.png", b"\x89PNG\r\n\x1a\n", "broken_image"),
        ("000000003.json", b"[1", "broken_record"),
    ],
)
def test_members_are_checked_in_sets_that_others_wrote(
    make_set: MakeSet, name: str, data: bytes | None, kind: str
):
    uri = make_set(10)
    (Path(uri) / "manifest.json").unlink()

    def change(member: str, old: bytes) -> tuple[str, bytes] | None:
        if member != name:
            return member, old
        return None if data is None else (member, data)

    rewrite(Path(uri) / "00000.tar", change)
    assert ("00000.tar", "000000003", kind) in kinds(uri)
    assert {key for _, key, _ in kinds(uri)} == {"000000003"}


def test_a_lost_sample_is_told_by_the_stats_and_named_by_the_parquet(make_set: MakeSet):
    uri = make_set(10)
    (Path(uri) / "manifest.json").unlink()
    rewrite(
        Path(uri) / "00000.tar", lambda name, data: None if name.startswith("000000009") else (name, data)
    )
    count = ("00000.tar", None, "count")
    assert kinds(uri) == {count, ("00000.tar", "000000009", "missing")}
    (Path(uri) / "00000.parquet").unlink()
    assert kinds(uri) == {count}


def test_duplicates_and_swapped_pictures_are_told(make_set: MakeSet):
    uri = make_set(20)
    rewrite(Path(uri) / "00001.tar", lambda name, data: (name.replace("000010004", "000000004"), data))
    index(uri)
    assert ("00001.tar", "000000004", "duplicate") in kinds(uri)

    uri = make_set(10, name="swapped")
    tar = Path(uri) / "00000.tar"
    pictures: dict[str, bytes] = {}
    rewrite(
        tar, lambda name, data: (name, pictures.setdefault(name[-4:], data) if name.endswith("png") else data)
    )
    index(uri)
    assert ("00000.tar", "000000005", "image_digest") in kinds(uri)


def test_missing_and_unlisted_shards_and_samples_are_told(make_set: MakeSet):
    uri = make_set(30)
    (Path(uri) / "00001.tar").rename(Path(uri) / "00009.tar")
    found = kinds(uri)
    assert {("00001.tar", None, "missing"), ("00009.tar", None, "unlisted")} <= found
    rewrite(
        Path(uri) / "00002.tar", lambda name, data: None if name.startswith("000020003") else (name, data)
    )
    assert ("00002.tar", "000020003", "missing") in kinds(uri)


def test_a_damaged_stats_file_is_told(make_set: MakeSet):
    uri = make_set(10)
    (Path(uri) / "00000_stats.json").write_text(json.dumps({"successes": 11}))
    assert check(uri).faults == (Fault("00000.tar", None, "count"),)
    (Path(uri) / "00000_stats.json").write_text("{")
    assert check(uri).faults == (Fault("00000.tar", None, "stats"),)


def test_a_place_without_shards_is_no_good_set(tmp_path: Path):
    with pytest.raises(InputError, match="holds no"):
        check(str(tmp_path))
    with pytest.raises(InputError):
        check("/nowhere/at/all")
