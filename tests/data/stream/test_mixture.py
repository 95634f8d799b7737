"""A mixture's file: strict, its paths relative to itself; draws that depend on the global index alone."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dalle2_train.data.shards.index import load_or_index
from dalle2_train.data.stream.mixture import Mixture, SourceConfig, mixture_of, sets_of
from dalle2_train.data.stream.summary import summarize
from dalle2_train.errors import InputError

MakeSet = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write_file(text: str) -> str:
        (tmp_path / "mixture.yaml").write_text(text)
        return str(tmp_path / "mixture.yaml")

    return write_file


TWO = """
sources:
- {name: photos, uri: photos, weight: 3}
- {name: art, uri: "s3://bucket/art/{00000..00009}.tar", weight: 1e-1, embeddings: ../vectors}
"""


def test_paths_begin_at_the_file(write: Callable[[str], str], tmp_path: Path):
    photos, art = mixture_of(write(TWO)).sources
    assert (photos.uri, photos.weight, photos.embeddings) == (str(tmp_path / "photos"), 3.0, None)
    assert (art.uri, art.weight) == ("s3://bucket/art/{00000..00009}.tar", 0.1)
    assert art.embeddings == str(tmp_path.parent / "vectors")


def test_a_set_is_a_mixture_of_one():
    assert sets_of("some/folder") == ("some/folder",)
    assert [mixture_of("some/folder").source_of(0, index) for index in range(9)] == [0] * 9


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("sources: []", "at least one"),
        ("sources: [{name: a, uri: x, weight: 1}, {name: a, uri: y, weight: 1}]", "cannot be told apart"),
        ("sources: [{name: a, uri: x, weight: 0}]", "more than 0"),
        ("sources: [{name: a, uri: x, weight: .nan}]", "more than 0"),
        ("sources: [{name: a, uri: x}]", "weight"),
        ("sources: [{name: a, url: x, weight: 1}]", "did you mean 'uri'"),
        ("source: []", "did you mean 'sources'"),
        ("- a", "expected a mapping"),
    ],
)
def test_what_is_no_mixture_is_told(write: Callable[[str], str], text: str, named: str):
    with pytest.raises(InputError, match=named):
        mixture_of(write(text))


def test_sources_come_by_weight():
    sources = tuple(SourceConfig(name, name, weight) for name, weight in (("a", 1.0), ("b", 3.0), ("c", 4.0)))
    counts = Counter(Mixture(sources).source_of(7, index) for index in range(20_000))
    for number, share in enumerate((1 / 8, 3 / 8, 1 / 2)):
        deviation = (20_000 * share * (1 - share)) ** 0.5
        assert abs(counts[number] - 20_000 * share) < 4 * deviation


def test_a_summary_is_of_all_sources(make_set: MakeSet, write: Callable[[str], str]):
    split = {"split": lambda number: "validation" if number % 5 == 0 else "train"}
    one, two = make_set(20, name="one", **split), make_set(15, name="two")
    text = "sources: [{{name: a, uri: one, weight: {}}}, {{name: b, uri: two, weight: 1}}]"
    summary = summarize(write(text.format(1)))
    assert summary.splits == {"train": 31, "validation": 4}
    assert summarize(write(text.format(1))) == summary
    assert summarize(write(text.format(2))).digest != summary.digest
    assert summarize(one).digest == load_or_index(one).digest != summarize(two).digest
