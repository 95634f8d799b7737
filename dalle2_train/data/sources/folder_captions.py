"""The captions of a folder of pictures: same-named .txt files, or one .csv or .jsonl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dalle2_train.errors import InputError

IMAGES = (".png", ".jpg", ".jpeg")
"""Suffixes, in lower case."""


def captions_file(files: list[Path], root: Path) -> Path | None:
    """The one .csv or .jsonl in the folder itself; two, or one beside .txt captions: InputError."""
    listings = [path for path in files if path.suffix.lower() in (".csv", ".jsonl") and path.parent == root]
    if len(listings) > 1:
        raise InputError(f"{listings[1]}: a second captions file beside {listings[0].name}; keep one of them")
    texts = [path for path in files if path.suffix.lower() == ".txt"]
    if listings and texts:
        raise InputError(f"{texts[0]}: a caption beside the captions file {listings[0].name}; keep one kind")
    return listings[0] if listings else None


def from_texts(files: list[Path], images: list[Path], problems: list[str]) -> dict[Path, tuple[str, str]]:
    """Picture → (caption, no split). What is amiss is added to the problems."""
    texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
    stems = {path.with_suffix("") for path in images}
    for stem, path in texts.items():
        if stem not in stems:
            problems.append(
                f"{path}: a caption without its picture; add {stem.name}.png or .jpg, or remove it"
            )
    found: dict[Path, tuple[str, str]] = {}
    for path in images:
        if (text := texts.get(path.with_suffix(""))) is not None:
            try:
                found[path] = (_text(text), "")
            except InputError as error:
                problems.append(str(error))
    return found


def from_listing(listing: Path, root: Path, problems: list[str]) -> dict[Path, tuple[str, str]]:
    """Picture → (caption, split or ""). What is amiss is added to the problems; no listing at all: InputError."""
    found: dict[Path, tuple[str, str]] = {}
    for number, row in _rows(listing):
        name, caption = row.get("file"), row.get("caption")
        where = f"{listing}, line {number}"
        if not isinstance(name, str) or not isinstance(caption, str) or not name:
            raise InputError(f"{where}: needs the columns file and caption, both texts")
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            problems.append(f"{where}: {name} lies outside {root}; name files relative to the folder")
        elif not path.is_file() or path.suffix.lower() not in IMAGES:
            problems.append(f"{where}: a caption without its picture: no PNG or JPEG file {path}")
        elif path in found:
            problems.append(f"{where}: a second caption for {name}; keep one")
        else:
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
