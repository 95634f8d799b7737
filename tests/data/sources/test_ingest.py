"""Ingest of folders: what goes in comes out, twice is once, and bad input leaves nothing behind."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from dalle2_train.data.check.doctor import check
from dalle2_train.data.sources.ingest import check_ingest, ingest
from dalle2_train.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "below").mkdir(parents=True)
    for i in range(12):
        place = root / ("below" if i % 3 == 0 else "") / f"{i:03d}"
        Image.new("RGB", (70 + i, 80), (20 * i, 90, 200)).save(place.with_suffix((".png", ".jpg")[i % 2]))
        place.with_suffix(".txt").write_text(f"colour number {i} – ü")
    return root


def listed(root: Path, suffix: str) -> Path:
    """Moves the captions of `folder` into one file."""
    rows = []
    for text in sorted(root.rglob("*.txt")):
        image = next(path for path in text.parent.glob(f"{text.stem}.*") if path.suffix != ".txt")
        rows.append((image.relative_to(root).as_posix(), text.read_text()))
        text.unlink()
    listing = root / f"captions{suffix}"
    if suffix == ".csv":
        lines = ["file,caption", *(f'{name},"{said}, said"' for name, said in rows)]
    else:
        lines = [json.dumps({"file": name, "caption": f"{said}, said"}) for name, said in rows]
    listing.write_text("\n".join(lines))
    return listing


def test_a_folder_becomes_shards_that_webdataset_reads(
    folder: Path, tmp_path: Path, squares: SimpleNamespace
):
    to = tmp_path / "shards"
    result = ingest(f"folder:{folder}", str(to))
    assert (result.num_samples, result.num_shards, result.skipped) == (12, 1, False)
    theirs = squares.read(to / "00000.tar")
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))
    for i, (sample, source) in enumerate(zip(theirs, sources, strict=True)):
        record = json.loads(sample["json"])
        assert sample["__key__"] == record["key"] == f"00000{i:04d}"
        assert sample[source.suffix[1:]] == source.read_bytes()
        assert sample["txt"].decode() == record["caption"] == source.with_suffix(".txt").read_text()
        assert (record["status"], record["error_message"]) == ("success", None)
        with Image.open(source) as image:
            assert (record["width"], record["height"]) == image.size
    assert pq.read_table(to / "00000.parquet").num_rows == 12
    assert json.loads((to / "00000_stats.json").read_text())["successes"] == 12
    assert check(str(to)).faults == ()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_captions_file(folder: Path, tmp_path: Path, squares: SimpleNamespace, suffix: str):
    listed(folder, suffix)
    assert ingest(f"folder:{folder}", str(tmp_path / "shards")).num_samples == 12
    theirs = squares.read(tmp_path / "shards" / "00000.tar")
    assert all(sample["txt"].decode().endswith("ü, said") for sample in theirs)


def test_again_is_skipped_and_other_pictures_are_refused(folder: Path, tmp_path: Path):
    to = tmp_path / "shards"
    ingest(f"folder:{folder}", str(to))
    before = {path: path.stat().st_mtime_ns for path in to.iterdir()}
    assert ingest(f"folder:{folder}", str(to)).skipped
    assert {path: path.stat().st_mtime_ns for path in to.iterdir()} == before
    (folder / "001.txt").write_text("something else")
    with pytest.raises(InputError, match="another source"):
        ingest(f"folder:{folder}", str(to))


def test_an_interrupted_ingest_goes_on(folder: Path, tmp_path: Path, monkeypatch):
    from dalle2_train.data.shards import writer

    to = tmp_path / "shards"

    def die(*args) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer.manifests, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            ingest(f"folder:{folder}", str(to))
    assert not (to / "manifest.json").exists()
    assert not ingest(f"folder:{folder}", str(to)).skipped
    assert check(str(to)).faults == ()
    assert sorted(path.name for path in to.iterdir()) == [
        "00000.parquet",
        "00000.tar",
        "00000_stats.json",
        "index",
        "manifest.json",
    ]


def no_caption(root: Path) -> str:
    (root / "004.txt").unlink()
    return "004.png"


def empty_caption(root: Path) -> str:
    (root / "004.txt").write_text(" \n")
    return "004.png"


def no_image(root: Path) -> str:
    (root / "004.png").unlink()
    return "004.txt"


def cut_image(root: Path) -> str:
    data = (root / "005.jpg").read_bytes()
    (root / "005.jpg").write_bytes(data[: len(data) // 2])
    return "005.jpg"


def not_an_image(root: Path) -> str:
    (root / "below" / "006.png").write_text("hello")
    return "006.png"


def other_format(root: Path) -> str:
    Image.new("RGB", (8, 8)).save(root / "x.gif")
    return "x.gif"


def disguised_format(root: Path) -> str:
    Image.new("RGB", (8, 8)).save(root / "004.png", "GIF")
    return "004.png"


def not_utf8(root: Path) -> str:
    (root / "004.txt").write_bytes(b"caf\xe9")
    return "004.txt"


def listed_without_image(root: Path) -> str:
    listed(root, ".csv")
    (root / "004.png").unlink()
    return "004.png"


def image_not_listed(root: Path) -> str:
    listing = listed(root, ".jsonl")
    lines = listing.read_text().splitlines()
    listing.write_text("\n".join(line for line in lines if "004.png" not in line))
    return "004.png"


def listed_outside(root: Path) -> str:
    listing = listed(root, ".csv")
    Image.new("RGB", (8, 8)).save(root.parent / "secret.png")
    listing.write_text(listing.read_text() + "\n../secret.png,mine")
    return "secret.png"


def listed_twice(root: Path) -> str:
    listing = listed(root, ".csv")
    listing.write_text(listing.read_text() + "\n004.png,again")
    return "004.png"


def wrong_columns(root: Path) -> str:
    listing = listed(root, ".csv")
    listing.write_text(listing.read_text().replace("file,caption", "path,text"))
    return "captions.csv"


def two_kinds(root: Path) -> str:
    (root / "captions.csv").write_text("file,caption\n004.png,x")
    return ".txt"


@pytest.mark.parametrize(
    "spoil",
    [
        no_caption,
        empty_caption,
        no_image,
        cut_image,
        not_an_image,
        other_format,
        disguised_format,
        not_utf8,
        listed_without_image,
        image_not_listed,
        listed_outside,
        listed_twice,
        wrong_columns,
        two_kinds,
    ],
)
def test_bad_input_is_named_and_leaves_nothing(folder: Path, tmp_path: Path, spoil: Callable[[Path], str]):
    named = spoil(folder)
    to = tmp_path / "out" / "shards"
    with pytest.raises(InputError) as error:
        ingest(f"folder:{folder}", str(to))
    assert named in str(error.value)
    assert [path for path in to.parent.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("source", ["emojis", "folder:", "parquet:x", "folder:/nowhere/at/all"])
def test_unknown_sources_are_told(source: str, tmp_path: Path):
    with pytest.raises(InputError):
        ingest(source, str(tmp_path / "shards"))


def test_an_empty_folder_and_a_taken_place_are_told(folder: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no PNG"):
        ingest(f"folder:{tmp_path / 'empty'}", str(tmp_path / "shards"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "00000.tar").write_bytes(b"somebody's")
    with pytest.raises(InputError, match="already holds"):
        ingest(f"folder:{folder}", str(tmp_path / "taken"))
    assert (tmp_path / "taken" / "00000.tar").read_bytes() == b"somebody's"


def test_a_tenth_is_held_out_by_caption(tmp_path: Path):
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(200):
        Image.new("RGB", (8, 8), (i, 90, 200)).save(root / f"{i:03d}.png")
        (root / f"{i:03d}.txt").write_text(f"colour number {i // 2}")
    count = ingest(f"folder:{root}", str(tmp_path / "shards")).splits
    assert set(count) == {"train", "validation"} and 8 <= count["validation"] <= 36
    rows = pq.read_table(tmp_path / "shards" / "00000.parquet").to_pylist()
    on_side = {split: {row["caption"] for row in rows if row["split"] == split} for split in count}
    assert not on_side["train"] & on_side["validation"]


def test_of_a_few_pictures_none_is_held_out(folder: Path, tmp_path: Path):
    assert ingest(f"folder:{folder}", str(tmp_path / "shards")).splits == {"train": 12}


def test_all_that_is_amiss_is_told_at_once(folder: Path, tmp_path: Path):
    named = [no_caption(folder), cut_image(folder), not_an_image(folder), "008.txt"]
    (folder / "008.png").unlink()
    named += [other_format(folder)]
    with pytest.raises(InputError) as error:
        ingest(f"folder:{folder}", str(tmp_path / "shards"))
    assert all(name in str(error.value) for name in named)


def test_broken_pictures_are_told_at_once_up_to_twenty(tmp_path: Path):
    root = tmp_path / "pictures"
    root.mkdir()
    for i in range(30):
        (root / f"{i:02d}.png").write_bytes(b"no picture")
        (root / f"{i:02d}.txt").write_text("a caption")
    Image.new("RGB", (8, 8)).save(root / "00.png")
    for attempt in (ingest, check_ingest):
        with pytest.raises(InputError) as error:
            attempt(f"folder:{root}", str(tmp_path / "shards"))
        lines = str(error.value).splitlines()
        assert [line.split("/")[-1].split(":")[0] for line in lines[:20]] == [
            f"{i:02d}.png" for i in range(1, 21)
        ]
        assert lines[20:] == ["… and 9 more"]
    assert not (tmp_path / "shards").exists()


def test_another_source_is_told_in_words(folder: Path, tmp_path: Path):
    ingest(f"folder:{folder}", str(tmp_path / "shards"))
    (folder / "001.txt").write_text("something else")
    for attempt in (ingest, check_ingest):
        with pytest.raises(InputError) as error:
            attempt(f"folder:{folder}", str(tmp_path / "shards"))
        assert "another source: folder (pairs 12, sha256 " in str(error.value)
        assert "{" not in str(error.value)


def test_a_dry_run_writes_nothing(folder: Path, tmp_path: Path):
    to = tmp_path / "deep" / "shards"
    assert not check_ingest(f"folder:{folder}", str(to))
    assert not to.parent.exists()
    ingest(f"folder:{folder}", str(to))
    before = {path: path.stat().st_mtime_ns for path in to.rglob("*")}
    assert check_ingest(f"folder:{folder}", str(to))
    assert {path: path.stat().st_mtime_ns for path in to.rglob("*")} == before
    (tmp_path / "file").write_text("a file")
    with pytest.raises(InputError, match="file/shards"):
        check_ingest(f"folder:{folder}", str(tmp_path / "file" / "shards"))


def test_a_size_is_not_ignored(folder: Path, tmp_path: Path):
    with pytest.raises(InputError, match="--image-size 64"):
        ingest(f"folder:{folder}", str(tmp_path / "shards"), image_size=64)
