"""A folder of PNG and JPEG pictures with captions: same-named .txt files, or one captions .csv or .jsonl.

The captions file lies in the folder itself and has the columns `file` (relative to it) and `caption`; a column
`split` (train, validation, …) is optional. Without it a hash of the caption holds a tenth out for validation, so that
one caption is on one side only; of fewer than 20 captions none is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dalle2_train import storage
from dalle2_train.data.pictures.decode import verify_image
from dalle2_train.data.pictures.picture import BrokenImageError
from dalle2_train.data.shards.writer import Record
from dalle2_train.data.sources import splits
from dalle2_train.data.sources.folder_captions import IMAGES, captions_file, from_listing, from_texts
from dalle2_train.errors import InputError

_UNREAD = (".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif", ".heic", ".svg")
_FEWEST_TO_HOLD_OUT = 20
_NUM_SHOWN = 20
_EXTENSIONS = {"PNG": "png", "JPEG": "jpg"}


class Pair(NamedTuple):
    """A picture's file, its name relative to the folder, its caption and its split."""

    path: Path
    name: str
    caption: str
    split: str


def pairs(folder: str) -> list[Pair]:
    """Every picture with its caption, sorted by name. What stands alone or is broken: InputError that names it all."""
    root = storage.local_path(folder)
    if root is None or not root.is_dir():
        raise InputError(f"folder:{folder}: no such local folder; give the path of a folder of pictures")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not _hidden(path, root))
    images = [path for path in files if path.suffix.lower() in IMAGES]
    listing = captions_file(files, root)
    problems = [
        f"{path}: only PNG and JPEG pictures are read; convert or remove it"
        for path in files
        if path.suffix.lower() in _UNREAD
    ]
    captions = from_listing(listing, root, problems) if listing else from_texts(files, images, problems)
    for path in images:
        if not captions.get(path, ("", ""))[0]:
            problems.append(f"{path}: has no caption; write one, or remove the picture")
    if problems:  # their mender wants to know of the others too
        _refuse(problems + _broken(images))
    if not images:
        raise InputError(f"{root}: holds no PNG or JPEG pictures; give a folder of pictures with captions")
    held_out = set() if any(split for _, split in captions.values()) else _held_out(captions.values())
    return [
        Pair(path, path.relative_to(root).as_posix(), caption, split or _split(caption, held_out))
        for path, (caption, split) in ((path, captions[path]) for path in images)
    ]


def check(found: list[Pair]) -> None:
    """Decodes every picture. Broken ones: InputError that names them all."""
    _refuse(_broken([pair.path for pair in found]))


def source(found: list[Pair]) -> dict[str, Any]:
    """What identifies these pairs: a digest over names, captions, splits and the pictures' bytes."""
    digest = sha256()
    for pair in found:
        parts = (pair.name, pair.caption, pair.split, storage.sha256_file(pair.path))
        digest.update("\0".join(parts).encode() + b"\n")
    return {"kind": "folder", "pairs": len(found), "sha256": digest.hexdigest()}


def records(found: list[Pair]) -> Iterator[Record]:
    """The pictures as they are. Broken ones: InputError in the end that names them all."""
    problems: list[str] = []
    for pair in found:
        image = _verified(pair.path, problems)
        if image is None or problems:
            continue
        fields = {
            "file": pair.name,
            "source": "folder",
            "split": pair.split,
            "original_width": image.width,
            "original_height": image.height,
        }
        data = pair.path.read_bytes()
        yield Record(data, _EXTENSIONS[image.format or ""], pair.caption, fields, image.width, image.height)
    _refuse(problems)


def _refuse(problems: list[str]) -> None:
    """InputError that names the first twenty of the problems, if there are any."""
    if problems:
        more = [f"… and {len(problems) - _NUM_SHOWN} more"] if len(problems) > _NUM_SHOWN else []
        raise InputError("\n".join([*problems[:_NUM_SHOWN], *more]))


def _broken(images: list[Path]) -> list[str]:
    problems: list[str] = []
    for path in images:
        _verified(path, problems)
    return problems


def _verified(path: Path, problems: list[str]) -> Image.Image | None:
    try:
        return verify_image(path.read_bytes(), tuple(_EXTENSIONS))
    except (BrokenImageError, OSError) as error:
        problems.append(f"{path}: broken picture: {error}; repair or remove it")
        return None


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
