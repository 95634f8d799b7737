"""Opt-out lists: who is on them, however an address is written, and what is no entry."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dalle2_train.data.selection.opt_out import read_list
from dalle2_train.data.shards.shard_index import index_of
from dalle2_train.errors import InputError


def write(folder: Path, *lines: str, name: str = "list.txt") -> str:
    (folder / name).write_text("\n".join(lines), "utf-8")
    return str(folder / name)


def named(uri: str, *urls: str | None, hashes: list[str | None] | None = None) -> list[bool]:
    hashes = hashes or [None] * len(urls)
    rows = [{"key": str(i), "url": u, "hash": h} for i, (u, h) in enumerate(zip(urls, hashes, strict=True))]
    return read_list(uri).names(index_of(rows)).tolist()


@pytest.mark.parametrize(
    "listed",
    [
        "example.com",
        "EXAMPLE.com",
        "www.example.com",
        "example.com.",
        "*.example.com",
        "https://example.com",
        "http://www.example.com:8080/",
        "example.com:443",
    ],
)
def test_a_domain_means_itself_and_all_below_it(tmp_path: Path, listed: str):
    on = (
        "https://example.com/cat.jpg",
        "http://example.com",
        "HTTP://Example.COM:8080/cat.jpg?size=3",
        "https://www.example.com/cat.jpg",
        "https://img.cdn.example.com/cat.jpg",
        "https://user:secret@example.com/cat.jpg",
        "https://example.com./cat.jpg",
        "https://ex%61mple.com/cat.jpg",
        "//example.com/cat.jpg",
        "example.com/cat.jpg",
        " https://example.com/cat.jpg ",
        "https:\\\\example.com\\cat.jpg",
    )
    off = (
        "https://notexample.com/cat.jpg",
        "https://example.com.evil.org/cat.jpg",
        "https://example.org/example.com",
        "https://evil.org/?from=https://example.com/cat.jpg",
        "https://example.com@evil.org/cat.jpg",
        "https://com/cat.jpg",
        "https://example.community/",
        "",
        None,
    )
    assert named(write(tmp_path, listed), *on) == [True] * len(on)
    assert named(write(tmp_path, listed), *off) == [False] * len(off)


def test_a_subdomain_means_not_its_parent(tmp_path: Path):
    urls = (
        "https://a.b.org/1",
        "https://x.a.b.org/1",
        "https://b.org/1",
        "https://c.b.org/1",
        "https://xa.b.org/1",
    )
    assert named(write(tmp_path, "a.b.org"), *urls) == [True, True, False, False, False]


@pytest.mark.parametrize("listed", ["bücher.example", "xn--bcher-kva.example", "BÜCHER.example"])
def test_names_in_other_alphabets(tmp_path: Path, listed: str):
    urls = ("https://bücher.example/1", "https://XN--BCHER-KVA.example/1", "https://b%C3%BCcher.example/1",
            "https://img.bücher。example/1", "https://bucher.example/1")  # fmt: skip
    assert named(write(tmp_path, listed), *urls) == [True, True, True, True, False]


def test_names_that_idna_refuses_are_compared_as_they_are(tmp_path: Path):
    urls = ("https://foo_bar.b.org/1", "https://ü_.b.org/1", "https://Ü_.b.org/2")
    assert named(write(tmp_path, "ü_.b.org"), *urls) == [False, True, True]


def test_numbers_are_whole(tmp_path: Path):
    urls = (
        "http://10.1.2.3/x",
        "http://10.1.2.3:81/x",
        "http://9.10.1.2.3/x",
        "http://[2001:DB8::1]:80/x",
        "http://1.2.3/x",
    )
    assert named(write(tmp_path, "10.1.2.3", "[2001:db8::1]"), *urls) == [True, True, False, True, False]


def test_an_address_is_one_picture(tmp_path: Path):
    listed = write(tmp_path, "https://example.com/a/cat%20one.jpg?size=1", "example.com/bare.png")
    on = (
        "http://www.example.com:80/a/cat one.jpg?size=1#top",
        "https://EXAMPLE.com/a/cat%20one.jpg?size=1",
        "https://example.com/bare.png",
    )
    off = (
        "https://example.com/a/cat%20one.jpg",
        "https://example.com/a/cat%20one.jpg?size=2",
        "https://example.com/A/cat%20one.jpg?size=1",
        "https://img.example.com/bare.png",
        "https://example.com/",
    )
    assert named(listed, *on) == [True] * len(on)
    assert named(listed, *off) == [False] * len(off)


def test_hashes(tmp_path: Path):
    listed = write(tmp_path, "AB" * 32, "d41d8cd98f00b204e9800998ecf8427e", "-5830249832461038")
    hashes = ["ab" * 32, "D41D8CD98F00B204E9800998ECF8427E", "-5830249832461038", "cd" * 32, None]
    assert named(listed, *[None] * 5, hashes=hashes) == [True, True, True, False, False]
    assert read_list(listed).asks_for == ("hash",)


def test_other_files_say_the_same(tmp_path: Path):
    urls = ("https://a.org/1.png", "https://a.org/2.png", "https://img.b.org/1.png", "https://c.org/1.png")
    hashes = [None, None, None, "ab" * 16]
    text = write(tmp_path, "# they asked", "", "https://a.org/1.png", "b.org", "ab" * 16)
    rows = [{"url": "https://a.org/1.png"}, {"domain": "b.org", "hash": "ab" * 16}, "b.org"]
    lines = write(tmp_path, *map(json.dumps, rows), name="list.jsonl")
    table = {
        "URL": ["https://a.org/1.png", None],
        "domain": [None, "b.org"],
        "md5": ["ab" * 16, None],
        "n": [1, 2],
    }
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    for uri in (text, lines, str(tmp_path / "list.parquet")):
        assert named(uri, *urls, hashes=hashes) == [True, False, True, True]
        assert read_list(uri).asks_for == ("url", "hash")


@pytest.mark.parametrize(
    "entry", ["com", "domain", "john@example.com", "a.org, b.org", "5", "1.5", "https://", "a b.org"]
)
def test_what_is_no_entry_is_told_with_its_line(tmp_path: Path, entry: str):
    with pytest.raises(InputError, match=r"line 2: ") as error:
        read_list(write(tmp_path, "good.org", entry))
    assert entry in str(error.value)


def test_bad_lines_are_told_together_up_to_twenty(tmp_path: Path):
    with pytest.raises(InputError, match="33 entries") as error:
        read_list(write(tmp_path, *(f"bad{i}" for i in range(33))))
    assert len(str(error.value).splitlines()) == 22
    assert str(error.value).endswith("and 13 more")


@pytest.mark.parametrize("line", ['{"site": "a.org"}', "[1]", "1.5", "{", "null"])
def test_bad_json_is_told_with_its_line(tmp_path: Path, line: str):
    with pytest.raises(InputError, match="line 2"):
        read_list(write(tmp_path, '"good.org"', line, name="list.jsonl"))


def test_files_that_are_no_lists_are_told(tmp_path: Path):
    pq.write_table(pa.table({"site": ["a.org"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.org")
    (tmp_path / "empty.txt").write_text("# nothing\n\n")
    for name in ("other.parquet", "broken.parquet", "latin.txt", "empty.txt", "missing.txt"):
        with pytest.raises(InputError, match=name):
            read_list(str(tmp_path / name))


def test_the_lists_digest_is_its_files(tmp_path: Path):
    import hashlib

    uri = write(tmp_path, "a.org")
    assert read_list(uri).sha256 == hashlib.sha256(b"a.org").hexdigest()
