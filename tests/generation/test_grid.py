"""The sheets that people look at: where pictures and captions land."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dalle2_train.errors import InputError
from dalle2_train.generation.grid import compare, grid, sections


def noise(count: int, size: int = 16, seed: int = 0) -> Tensor:
    return torch.randint(0, 255, (count, 3, size, size), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


def find(sheet: Image.Image, image: Tensor, scale: int) -> tuple[int, int]:
    """Top left corner of the enlarged picture in the sheet."""
    pixels = np.asarray(sheet)
    picture = image.permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
    height, width = picture.shape[:2]
    corners = np.argwhere(
        (pixels[: len(pixels) - height + 1, : pixels.shape[1] - width + 1] == picture[0, 0]).all(-1)
    )
    for top, left in corners.tolist():
        if np.array_equal(pixels[top : top + height, left : left + width], picture):
            return top, left
    raise AssertionError("the picture is not in the sheet, pixel for pixel")


def test_pictures_are_enlarged_crisply_and_stand_in_reading_order():
    images = noise(5, size=64)
    sheet = grid(images, ["a", "b", "c", "d", "e"], columns=3)
    corners = [find(sheet, image, scale=3) for image in images]
    assert corners[:3] == sorted(corners[:3])
    assert len({top for top, _ in corners[:3]}) == 1
    assert corners[3][0] > corners[0][0]
    assert [left for _, left in corners[3:]] == [left for _, left in corners[:2]]


def test_the_paper_is_white_and_the_caption_stands_under_its_own_picture():
    images = noise(2, size=48)
    sheet = grid(images, ["a red heart", ""], scale=2)
    pixels = np.asarray(sheet)
    assert (pixels[0] == 255).all()
    (top, first), (_, second) = find(sheet, images[0], 2), find(sheet, images[1], 2)
    below = pixels[top + 96 :]
    assert (below[:, first : first + 96] < 128).any()
    assert (below[:, second : second + 96] == 255).all()


def test_long_captions_are_wrapped_and_make_the_sheet_higher_but_never_wider():
    image = noise(1, size=32)
    short, long = grid(image, ["cat"], scale=3), grid(image, ["cat " * 9 + "x" * 60], scale=3)
    endless = grid(image, ["word " * 500], scale=3)
    assert short.width == long.width == endless.width
    assert short.height < long.height == endless.height


def test_accents_are_drawn_as_their_letters():
    image = noise(1)
    assert np.array_equal(np.asarray(grid(image, ["piñata"])), np.asarray(grid(image, ["pinata"])))


def test_other_alphabets_have_letters_of_their_own():
    image = noise(1)
    dog, cat = (np.asarray(grid(image, [text])) for text in ("собака", "кошечк"))
    assert dog.shape == cat.shape and not np.array_equal(dog, cat)  # boxes would all be the same


def test_compare_puts_real_below_generated():
    generated, real = noise(2), noise(2, seed=1)
    sheet = compare({"generated": generated, "real": real}, ["a", "b"], scale=2)
    for above, below in zip(generated, real, strict=True):
        (top, left), (lower, same) = find(sheet, above, 2), find(sheet, below, 2)
        assert same == left
        assert lower > top
    assert find(sheet, generated[0], 2)[1] > 50  # the rows' names stand at the left


@pytest.mark.parametrize(
    ("images", "captions"),
    [(noise(2), ["one"]), (noise(0), []), (noise(1).float(), ["one"]), (noise(1)[:, :1], ["one"])],
)
def test_what_does_not_fit_is_told(images: Tensor, captions: list[str]):
    with pytest.raises(InputError):
        grid(images, captions)


def test_sections_keep_their_sheets_and_have_a_heading_above_each():
    first, second = noise(2), noise(3, seed=1)
    sheets = {"seen": grid(first, ["a", "b"], scale=2), "unseen": grid(second, ["c", "d", "e"], scale=2)}
    whole = sections(sheets)
    above, below = find(whole, first[0], 2)[0], find(whole, second[0], 2)[0]
    assert above < below and whole.width == max(sheet.width for sheet in sheets.values())
    pixels = np.asarray(whole)
    plain = np.asarray(sections({"": sheets["seen"], " ": sheets["unseen"]}))
    assert plain.shape == pixels.shape
    headings = np.flatnonzero((pixels != plain).any(axis=(1, 2)))  # rows of pixels that headings alone ink
    assert headings.min() < above and above + 32 < headings.max() < below
    assert not ((headings >= above) & (headings < above + 32)).any()
