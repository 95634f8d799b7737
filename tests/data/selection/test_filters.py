"""Filters are told what cannot be, and read from a recipe."""

import pytest

from dalle2_train.config import build
from dalle2_train.data.selection.bounds import BOUNDS, aspect, is_told
from dalle2_train.data.selection.filters import FilterConfig, Filters
from dalle2_train.data.shards.shard_index import ShardIndex, index_of
from dalle2_train.errors import InputError


def index(**columns: list) -> ShardIndex:
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return index_of([{"key": str(i), "split": "train", **row} for i, row in enumerate(rows)])


def dropped(config: FilterConfig, of: ShardIndex) -> dict[str, list[bool]]:
    return {verdict.name: verdict.dropped.tolist() for verdict in Filters(config).verdicts(of)}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("min_width", -1),
        ("max_aspect", 0.5),
        ("max_punsafe", 1.5),
        ("max_pwatermark", -0.1),
        ("max_nsfw_score", 2),
        ("min_similarity", float("nan")),
        ("min_aesthetic", float("inf")),
        ("duplicates", "url"),
        ("nsfw", "UNLIKELY"),
        ("min_with", 3),
    ],
)
def test_what_cannot_be_is_told(setting: str, value: object):
    with pytest.raises(InputError, match=setting):
        build(FilterConfig, {setting: value}, "data.filters")


def test_caption_bounds_that_exclude_one_another_are_told():
    with pytest.raises(InputError, match=r"min_caption_length 9 is over max_caption_length 3"):
        FilterConfig(min_caption_length=9, max_caption_length=3)


def test_bounds_are_the_configs_in_its_order():
    names = [bound.name for bound in BOUNDS]
    assert names == [name for name in FilterConfig.__dataclass_fields__ if name in names]
    others = set(FilterConfig.__dataclass_fields__) - set(names)
    assert others == {"opt_out", "duplicates", "keep_untold"}


def test_bounds_are_inclusive_and_what_is_untold_goes_unless_told_otherwise():
    of = index(width=[4, 5, 6, None], punsafe=[0.4, 0.5, 0.6, None])
    config = {"min_width": 5, "max_punsafe": 0.5}
    assert dropped(FilterConfig(**config), of) == {
        "min_width": [True, False, False, True],
        "max_punsafe": [False, False, True, True],
    }
    assert dropped(FilterConfig(**config, keep_untold=True), of) == {
        "min_width": [True, False, False, False],
        "max_punsafe": [False, False, True, False],
    }


def test_a_picture_without_pixels_tells_no_aspect():
    of = index(width=[10, 0, -5, 3, None], height=[20, 5, 3, 3, 3])
    assert aspect(of)[[0, 3]].tolist() == [2.0, 1.0]
    assert is_told(of, "width").tolist() == [True, False, False, True, False]
    assert dropped(FilterConfig(max_aspect=2), of) == {"max_aspect": [False, True, True, False, True]}
    kept = dropped(FilterConfig(max_aspect=1.5, keep_untold=True), of)
    assert kept == {"max_aspect": [True, False, False, False, False]}


def test_words():
    of = index(nsfw=["UNLIKELY", "unlikely", "UNSURE", None], language=["en", "EN", "de", None])
    assert dropped(FilterConfig(nsfw=("Unlikely",), languages=("en",)), of) == {
        "nsfw": [False, False, True, True],
        "languages": [False, True, True, True],
    }
