"""Crops and captions: a function of the key alone, uniform over what is allowed."""

import io
import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_train.data.config import DataConfig
from dalle2_train.data.faults import DamagedError
from dalle2_train.data.samples.transforms import Transforms
from dalle2_train.data.shards.writer import Record, write_shards
from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError

WIDTH, HEIGHT = 12, 7


def ramp(transposed: bool = False) -> bytes:
    """A picture whose pixels tell their place: red the column, green the row."""
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([column, row, 0 * row], 2).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 0, 2) if transposed else pixels).save(stream, "PNG")
    return stream.getvalue()


def test_a_random_crop_is_the_whole_short_side_at_every_place_equally_often():
    shown = [Transforms(crop="random").picture(ramp(), HEIGHT, key) for key in range(3000)]
    places = Counter(int(picture[0, 0, 0]) for picture in shown)
    for picture in shown:
        left = int(picture[0, 0, 0])
        assert (picture[..., 0] == left + np.arange(HEIGHT)).all()
        assert (picture[..., 1] == np.arange(HEIGHT)[:, None]).all()
    assert sorted(places) == list(range(WIDTH - HEIGHT + 1))
    assert all(400 < count < 600 for count in places.values())  # 500 each, 4.9 standard deviations


def test_a_high_picture_is_cropped_along_its_height():
    tops = {int(Transforms(crop="random").picture(ramp(True), HEIGHT, key)[0, 0, 0]) for key in range(200)}
    assert tops == set(range(WIDTH - HEIGHT + 1))


def test_smaller_crops_are_of_every_size_and_place():
    transforms = Transforms(crop="random", min_crop_fraction=0.5)
    squares = [transforms._random_square(key, 120, 70) for key in range(3000)]
    sides = [square.side for square in squares]
    assert (min(sides), max(sides)) == (35, 70)
    assert np.mean(sides) == pytest.approx(52.5, abs=1)
    assert all(0 <= left <= 120 - side and 0 <= top <= 70 - side for left, top, side in squares)
    assert np.mean([left / (120 - side) for left, _, side in squares]) == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(sides, [left / (120 - side) for left, _, side in squares])[0, 1]) < 0.1


def test_equal_keys_give_equal_samples_and_others_do_not():
    transforms = Transforms(crop="random", min_crop_fraction=0.3, flip=True)
    first = [transforms.picture(ramp(), 5, key).tobytes() for key in range(50)]
    assert first == [transforms.picture(ramp(), 5, key).tobytes() for key in range(50)]
    assert len(set(first)) > 40


def test_half_of_the_visits_are_mirrored():
    plain = Transforms().picture(ramp(), HEIGHT, 0)
    shown = [Transforms(flip=True).picture(ramp(), HEIGHT, key) for key in range(1000)]
    mirrored = [(picture == plain[:, ::-1]).all() for picture in shown]
    assert 420 < sum(mirrored) < 580
    assert all(flipped or (picture == plain).all() for flipped, picture in zip(mirrored, shown, strict=True))


def record(**fields) -> dict:
    return {"__key__": "0", "__url__": "set/0.tar", "txt": b"plain", "json": json.dumps(fields).encode()}


def test_the_txt_is_the_caption_where_nothing_is_set():
    assert Transforms().caption(record(captions=["other"]), 7) == "plain"
    assert not Transforms().draws


def test_one_of_several_captions_is_drawn():
    transforms = Transforms(captions="json.captions")
    raw = record(captions=["a", "b", " c "])
    drawn = Counter(transforms.caption(raw, key) for key in range(3000))
    assert set(drawn) == {"a", "b", "c"}
    assert all(900 < count < 1100 for count in drawn.values())
    assert transforms.caption(record(captions="alone"), 3) == "alone"
    assert transforms.draws


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "no_caption"),
        ({"captions": []}, "no_caption"),
        ({"captions": None}, "no_caption"),
        ({"captions": ["a", ""]}, "broken_caption"),
        ({"captions": ["a", 3]}, "broken_caption"),
        ({"captions": {"a": "b"}}, "broken_caption"),
    ],
)
def test_a_sample_without_captions_is_damaged(fields: dict, kind: str):
    with pytest.raises(DamagedError) as told:
        Transforms(captions="json.captions").caption(record(**fields), 0)
    assert told.value.kind == kind


def test_a_broken_record_is_told():
    with pytest.raises(DamagedError) as told:
        Transforms(captions="json.captions").caption({**record(), "json": b"{"}, 0)
    assert told.value.kind == "broken_record"


@pytest.mark.parametrize(
    "settings",
    [
        {"min_crop_fraction": 0.0, "crop": "random"},
        {"min_crop_fraction": 1.5, "crop": "random"},
        {"min_crop_fraction": 0.8},
        {"captions": "captions"},
        {"captions": "json."},
    ],
)
def test_settings_that_mean_nothing_are_told(settings: dict):
    with pytest.raises(InputError, match=f"data.{next(iter(settings))}"):
        DataConfig(**settings)


def test_what_is_drawn_depends_on_the_place_in_the_order_alone(make_set):
    """Not on the rank; and another visit draws anew."""

    def records():
        for number in range(12):
            fields = {"split": "train", "captions": [str(2 * number), str(2 * number + 1)]}
            yield Record(ramp(), "png", "none", fields, WIDTH, HEIGHT)

    uri = make_set(1) + "-several"
    write_shards(records(), uri, {"kind": "several"}, samples_per_shard=5)
    config = DataConfig(HEIGHT, crop="random", captions="json.captions", num_lanes=4, block_size=3)

    def seen(world_size: int) -> list[dict[int, tuple[int, int]]]:
        batches = [{} for _ in range(20)]
        for rank in range(world_size):
            stream = open_stream(uri, config, rank, world_size)
            for found, (batch, _) in zip(batches, stream, strict=False):
                drawn = zip(batch.token_ids[:, 0].tolist(), batch.image[:, 0, 0, 0].tolist(), strict=True)
                found |= dict(zip(batch.index.tolist(), drawn, strict=True))
        return batches

    alone = seen(1)
    assert alone == seen(2) == seen(4)
    visits = Counter(drawn for batch in alone for drawn in batch.values())
    assert {caption for caption, _ in visits} == set(range(24))
    assert len({left for _, left in visits}) == WIDTH - HEIGHT + 1


def open_stream(uri: str, config: DataConfig, rank: int, world_size: int) -> Stream:
    return Stream(
        uri,
        config,
        seed=3,
        global_batch_size=8,
        batch_type=ClipBatch,
        rank=rank,
        world_size=world_size,
        tokenize=lambda texts: (torch.tensor([[int(text)] for text in texts]), torch.ones(len(texts), 1) > 0),
    )
