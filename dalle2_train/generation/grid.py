"""Draws pictures in a grid with their captions wrapped underneath, enlarged without smoothing, on white.

Legend: B pictures, H W their size in pixels.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dalle2_train.errors import InputError

_MARGIN = 12
_INK = (32, 32, 32)
_PAPER = (255, 255, 255)
_MAX_CAPTION_LINES = 4
_MIN_WIDTH = 192  # room for two or three words of a caption

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def grid(
    images: Tensor, captions: Sequence[str], *, columns: int | None = None, scale: int | None = None
) -> Image.Image:
    """One picture per caption.

    images: (B, 3, H, W) uint8. captions: B texts, empty ones are allowed. columns: pictures in a row, by
    default up to 6. scale: whole-numbered enlargement, by default to 192 px or more.
    Errors: InputError when the numbers of pictures and captions differ or there are none.
    """
    return compare({"": images}, captions, columns=columns, scale=scale)


def compare(
    rows: Mapping[str, Tensor],
    captions: Sequence[str],
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> Image.Image:
    """Pictures of the same captions above one another, named at their left: {"generated": …, …}.

    rows: name → (B, 3, H, W) uint8; pictures of another size are enlarged to the first row's. The other
    arguments and the errors are `grid`'s.
    """
    _check(rows, captions)
    first = next(iter(rows.values()))
    scale = scale or _default_scale(int(first.shape[-1]))
    width, height = int(first.shape[-1]) * scale, int(first.shape[-2]) * scale
    font = _font("".join([*rows, *map(_drawable, captions)]), size=max(13, min(18, width // 10)))
    pictures = [[_enlarge(image, width, height) for image in images] for images in rows.values()]
    cells = [
        _cell(list(column), caption, font)
        for column, caption in zip(zip(*pictures, strict=True), captions, strict=True)
    ]
    columns = max(1, min(columns or 6, len(cells)))
    bands = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    return _stack([_band(band, list(rows), height, font) for band in bands])


def sections(sheets: Mapping[str, Image.Image]) -> Image.Image:
    """Sheets below one another, each under its heading."""
    bands: list[Image.Image] = []
    for heading, sheet in sheets.items():
        font = _font(_drawable(heading), size=22)
        line = Image.new("RGB", (sheet.width - 2 * _MARGIN, _line_height(font)), _PAPER)
        ImageDraw.Draw(line).text((0, 0), _drawable(heading), fill=_INK, font=font)
        bands += [line, sheet.crop((_MARGIN, _MARGIN, sheet.width - _MARGIN, sheet.height))]
    return _stack(bands)


def _check(rows: Mapping[str, Tensor], captions: Sequence[str]) -> None:
    if not rows or not captions:
        raise InputError("a grid needs at least one picture and its caption")
    for name, images in rows.items():
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"pictures {name!r} are {images.dtype} {tuple(images.shape)}; give uint8 (B, 3, H, W)"
            )
        if len(images) != len(captions):
            raise InputError(
                f"{len(images)} pictures {name!r} for {len(captions)} captions; give one caption each"
            )


def _default_scale(size: int) -> int:
    return math.ceil(_MIN_WIDTH / size)


def _enlarge(image: Tensor, width: int, height: int) -> Image.Image:
    """(3, H, W) uint8 → a PIL picture of the size asked for; pixels stay squares."""
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
    return picture.resize((width, height), Image.Resampling.NEAREST)


def _font(text: str, size: int) -> Font:
    """Pillow's own font, or for what it lacks matplotlib's, which knows most alphabets."""
    if text.isascii():
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _drawable(text: str) -> str:
    """Accents fall off their letters: Pillow's own font has no accented ones, and would draw boxes."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _wrap(text: str, width: int, font: Font) -> list[str]:
    """Lines no wider than `width` pixels; a word that is too long is cut; so is a long text, with …"""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) <= _MAX_CAPTION_LINES:
        return lines
    last = lines[_MAX_CAPTION_LINES - 1]
    while last and font.getlength(last + "…") > width:
        last = last[:-1]
    return [*lines[: _MAX_CAPTION_LINES - 1], last + "…"]


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Agj|")
    return round((bottom - top) * 1.2)


def _cell(pictures: list[Image.Image], caption: str, font: Font) -> Image.Image:
    """Pictures of one caption from top to bottom, then the caption."""
    width, height = pictures[0].size
    lines = _wrap(_drawable(caption), width, font) if caption.strip() else []
    text_height = len(lines) * _line_height(font) + (_MARGIN // 2 if lines else 0)
    canvas = Image.new("RGB", (width, len(pictures) * (height + _MARGIN) - _MARGIN + text_height), _PAPER)
    for i, picture in enumerate(pictures):
        canvas.paste(picture, (0, i * (height + _MARGIN)))
    top = canvas.height - text_height + _MARGIN // 2
    draw = ImageDraw.Draw(canvas)
    for i, line in enumerate(lines):
        # Centred under its picture.
        left = (width - font.getlength(line)) / 2
        draw.text((left, top + i * _line_height(font)), line, fill=_INK, font=font)
    return canvas


def _band(cells: list[Image.Image], names: list[str], picture_height: int, font: Font) -> Image.Image:
    """Cells side by side, with the names of their rows at the left."""
    name_width = round(max(font.getlength(name) for name in names))
    left = name_width + _MARGIN if name_width else 0
    width = left + sum(cell.width + _MARGIN for cell in cells) - _MARGIN
    canvas = Image.new("RGB", (width, max(cell.height for cell in cells)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for i, name in enumerate(names):
        middle = i * (picture_height + _MARGIN) + (picture_height - _line_height(font)) / 2
        draw.text((0, middle), name, fill=_INK, font=font)
    for cell in cells:
        canvas.paste(cell, (left, 0))
        left += cell.width + _MARGIN
    return canvas


def _stack(bands: list[Image.Image]) -> Image.Image:
    """Bands under one another, with a margin all around."""
    width = max(band.width for band in bands) + 2 * _MARGIN
    height = sum(band.height + _MARGIN for band in bands) + _MARGIN
    canvas = Image.new("RGB", (width, height), _PAPER)
    top = _MARGIN
    for band in bands:
        canvas.paste(band, (_MARGIN, top))
        top += band.height + _MARGIN
    return canvas
