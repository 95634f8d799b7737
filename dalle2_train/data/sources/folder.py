"""A folder of PNG and JPEG pictures with captions: same-named .txt files, or one captions .csv or .jsonl.

The captions file lies in the folder itself and has the columns `file` (relative to it) and `caption`; a column
`split` (train, validation, …) is optional. Without it a hash of the caption holds a tenth out for validation, so that
one caption is on one side only; of fewer than 20 captions none is held out.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from dalle2_train import storage
from dalle2_train.data.decode import verify_image
from dalle2_train.data.picture import BrokenImageError
from dalle2_train.data.sources import splits
from dalle2_train.data.writer import Record
from dalle2_train.errors import InputError

_IMAGES = (".png", ".jpg", ".jpeg")
_UNREAD = (".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".svg")
_FEWEST_TO_HOLD_OUT = 20
_EXTENSIONS = {"PNG": "png", "JPEG": "jpg"}


class Pair(NamedTuple):
    """A picture's file, its name relative to the folder, its caption and its split."""

    path: Path
    name: str
    caption: str
    split: str


def pairs(folder: str) -> list[Pair]:
    """Every picture with its caption, sorted by name. A picture or a caption that stands alone: InputError."""
    root = storage.local_path(folder)
    if root is None or not root.is_dir():
        raise InputError(f"folder:{folder}: no such local folder; give the path of a folder of pictures")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not _hidden(path, root))
    for path in files:
        if path.suffix.lower() in _UNREAD:
            raise InputError(f"{path}: only PNG and JPEG pictures are read; convert or remove it")
    images = [path for path in files if path.suffix.lower() in _IMAGES]
    listing = _captions_file(files, root)
    captions = _from_listing(listing, root) if listing else _from_texts(files, images)
    for path in images:
        if not captions.get(path, ("", ""))[0]:
            raise InputError(f"{path}: has no caption; write one, or remove the picture")
    if not images:
        raise InputError(f"{root}: holds no PNG or JPEG pictures; give a folder of pictures with captions")
    held_out = set() if any(split for _, split in captions.values()) else _held_out(captions.values())
    return [
        Pair(path, path.relative_to(root).as_posix(), caption, split or _split(caption, held_out))
        for path, (caption, split) in ((path, captions[path]) for path in images)
    ]


def source(found: list[Pair]) -> dict[str, Any]:
    """What identifies these pairs: a digest over names, captions, splits and the pictures' bytes."""
    digest = sha256()
    for pair in found:
        parts = (pair.name, pair.caption, pair.split, storage.sha256_file(pair.path))
        digest.update("\0".join(parts).encode() + b"\n")
    return {"kind": "folder", "pairs": len(found), "sha256": digest.hexdigest()}


def records(found: list[Pair]) -> Iterator[Record]:
    """The pictures as they are. One that cannot be decoded: InputError that names its file."""
    for pair in found:
        data = pair.path.read_bytes()
        try:
            image = verify_image(data, tuple(_EXTENSIONS))
        except BrokenImageError as error:
            raise InputError(f"{pair.path}: broken picture: {error}; repair or remove it") from error
        fields = {
            "url": pair.name,
            "source": "folder",
            "split": pair.split,
            "original_width": image.width,
            "original_height": image.height,
        }
        yield Record(data, _EXTENSIONS[image.format or ""], pair.caption, fields, image.width, image.height)


def _held_out(captions: Iterable[tuple[str, str]]) -> set[str]:
    """Captions of the validation split: a tenth by their hashes, and never fewer than two."""
    by_hash = sorted(
        {caption for caption, _ in captions}, key=lambda caption: splits.draw("validation", caption)
    )
    if len(by_hash) < _FEWEST_TO_HOLD_OUT:
        return set()
    below = sum(splits.draw("validation", caption) < splits.VALIDATION_SHARE for caption in by_hash)
    return set(by_hash[: max(2, below)])


def _split(caption: str, held_out: set[str]) -> str:
    return splits.VALIDATION if caption in held_out else splits.TRAIN


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _captions_file(files: list[Path], root: Path) -> Path | None:
    listings = [path for path in files if path.suffix.lower() in (".csv", ".jsonl") and path.parent == root]
    if len(listings) > 1:
        raise InputError(f"{listings[1]}: a second captions file beside {listings[0].name}; keep one of them")
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    if listings and texts:
        raise InputError(f"{texts[0]}: a caption beside the captions file {listings[0].name}; keep one kind")
    return listings[0] if listings else None


def _from_texts(files: list[Path], images: list[Path]) -> dict[Path, tuple[str, str]]:
    """Picture → (caption, no split)."""
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    stems = {path.with_suffix("") for path in images}
    for stem, path in texts.items():
        if stem not in stems:
            raise InputError(
                f"{path}: a caption without its picture; add {stem.name}.png or .jpg, or remove it"
            )
    found = ((path, texts.get(path.with_suffix(""))) for path in images)
    return {path: (_text(text), "") for path, text in found if text is not None}


def _from_listing(listing: Path, root: Path) -> dict[Path, tuple[str, str]]:
    """Picture → (caption, split or "")."""
    found: dict[Path, tuple[str, str]] = {}
    for number, row in _rows(listing):
        name, caption = row.get("file"), row.get("caption")
        where = f"{listing}, line {number}"
        if not isinstance(name, str) or not isinstance(caption, str) or not name:
            raise InputError(f"{where}: needs the columns file and caption, both texts")
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise InputError(f"{where}: {name} lies outside {root}; name files relative to the folder")
        if not path.is_file() or path.suffix.lower() not in _IMAGES:
            raise InputError(f"{where}: a caption without its picture: no PNG or JPEG file {path}")
        if path in found:
            raise InputError(f"{where}: a second caption for {name}; keep one")
        found[path] = (caption.strip(), str(row.get("split") or ""))
    return found


def _rows(listing: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    text = _text(listing)
    if listing.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for row in reader:
            yield reader.line_num, row
        return
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise InputError(f"{listing}, line {number}: not JSON ({error})") from error
        if row is not None and not isinstance(row, dict):
            raise InputError(f"{listing}, line {number}: not a JSON object with file and caption")
        if row is not None:
            yield number, row


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error
