"""Statistics: every sample is in them once, and the numbers are NumPy's."""

import io
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dalle2_train.cli import main
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.selection.selection import select
from dalle2_train.data.shards.index import open_set
from dalle2_train.data.shards.writer import write_shards
from dalle2_train.data.stats.distribution import distribution
from dalle2_train.data.stats.figure import figure
from dalle2_train.data.stats.stats import Stats, StatsConfig, stats
from dalle2_train.data.stats.table import table
from dalle2_train.errors import InputError


@pytest.fixture
def uri(tmp_path: Path, squares: SimpleNamespace) -> str:
    """30 pictures in shards of 12, 12 and 6; every third record tells no similarity, none an aesthetic score."""

    def told(number: int) -> dict[str, object]:
        similarity = {} if number % 3 == 0 else {"similarity": number / 100}
        return {
            "original_width": 10 + number,
            "original_height": 20,
            "language": "de" if number % 5 else "en",
            **similarity,
        }

    records = (
        record._replace(fields={**record.fields, **told(i), "split": "validation" if i == 7 else "train"})
        for i, record in enumerate(squares.records(30))
    )
    write_shards(records, str(tmp_path / "set"), {"kind": "stats"}, samples_per_shard=12)
    return str(tmp_path / "set")


def by_name(found: Stats) -> dict[str, SimpleNamespace]:
    return {one.name: SimpleNamespace(**vars(one)) for one in (*found.numbers, *found.words)}


def test_a_set(uri: str):
    found = stats(uri)
    one = by_name(found)
    assert (found.num_samples, found.num_shards) == (30, 3)
    assert (one["width"].min, one["width"].median, one["width"].mean, one["width"].max) == (
        10,
        24.5,
        24.5,
        39,
    )
    assert (one["height"].edges, one["height"].counts) == ((20, 21), (30,))
    assert one["aspect"].max == 2.0
    assert (one["similarity"].told, one["similarity"].untold) == (20, 10)
    assert one["samples_per_shard"].median == 12
    assert one["split"].counts == {"train": 29, "validation": 1}
    assert one["language"].counts == {"de": 24, "en": 6}
    assert one["format"].counts == {"png": 30}
    assert set(found.untold) == {"aesthetic", "punsafe", "pwatermark", "nsfw", "nsfw_score"}
    lengths = np.concatenate([open_set(uri).index(i).lengths for i in range(3)])
    assert one["bytes_per_sample"].mean == pytest.approx(lengths.mean())
    assert all(sum(numbers.counts) == numbers.told for numbers in found.numbers)


def test_the_ledger_is_what_training_would_find(uri: str):
    filters = FilterConfig(min_width=20, min_similarity=0.2)
    found = stats(uri, StatsConfig("train", filters))
    assert found.ledger == select(open_set(uri), "train", filters).ledger
    assert found.ledger.filtered == {"split": 1, "min_width": 9, "min_similarity": 6 + 7}
    with pytest.raises(InputError, match="min_aesthetic"):
        stats(uri, StatsConfig(filters=FilterConfig(min_aesthetic=5)))


VALUES = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60)


@given(VALUES | st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=60), st.booleans())
def test_a_distribution_is_what_python_finds(values: list[float], whole: bool):
    values = [float(round(value)) for value in values] if whole else values
    ours = distribution("x", "", np.array(values), 0, whole=whole)
    assert (ours.min, ours.max, ours.told) == (min(values), max(values), len(values))
    assert ours.median == statistics.median(values)
    assert ours.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    edges = ours.edges
    assert list(edges) == sorted(set(edges)) and len(ours.counts) == len(edges) - 1
    # geomspace meets its own ends but for a rounding.
    room = 1e-9 * max(1.0, *map(abs, values))
    assert edges[0] <= ours.min + room and ours.max <= edges[-1] + room
    last = len(ours.counts) - 1
    inner = [sum(low <= v < high for v in values) for low, high in pairwise(edges)]
    assert list(ours.counts[1:last]) == inner[1:last]
    assert sum(ours.counts) == len(values)


def test_a_distribution_of_nothing_and_of_one_value():
    assert distribution("x", "", np.array([], dtype=np.float32), 3, whole=False).told == 0
    assert distribution("x", "", np.full(9, 0.25, np.float32), 0, whole=False).counts == (0, 9, 0)
    ours = distribution("p", "", np.full(9, 1.0, np.float32), 0, whole=False, bounds=(0.0, 1.0))
    assert (ours.edges[0], ours.edges[-1], ours.counts) == (0.0, 1.0, (0, 0, 9))


def test_the_picture_is_drawn(uri: str):
    with Image.open(io.BytesIO(figure(stats(uri)))) as image:
        assert image.format == "PNG" and image.width == 1560
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_the_command(uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    to = tmp_path / "out"
    arguments = [
        "shards",
        "stats",
        uri,
        "--to",
        str(to),
        "--set",
        "filters.min_width=20",
        "--set",
        "split=train",
    ]
    assert main([*arguments, "--dry-run"]) == 0 and not to.exists()
    capsys.readouterr()
    assert main(arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dropped", "by", "min_width", "9"] in lines and ["kept", "20", "66.7%"] in lines
    found = json.loads((to / "stats.json").read_text())
    assert found["ledger"]["kept"] == 20 and found["filters"]["min_width"] == 20
    assert (to / "stats.png").read_bytes() == figure(
        stats(uri, StatsConfig("train", FilterConfig(min_width=20)))
    )
    assert main(["shards", "stats", uri, "--set", "filters.min_with=20"]) == 2
    assert "min_width" in capsys.readouterr().err
    assert main(["shards", "stats", uri, "--set", "data.filters.min_width=20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ledger"]["kept"] == 20


def test_the_table_says_what_is_not_told(uri: str):
    text = table(stats(uri))
    assert "told by no record: " in text and "aesthetic" in text
    assert "24 de, 6 en" in text


def test_an_older_index_has_no_formats(make_set: Callable[..., str], tmp_path: Path):
    uri = make_set(4)
    (file,) = Path(uri, "index").iterdir()
    pq.write_table(pq.read_table(file).drop_columns(["format", "nsfw_score"]), file)
    assert {"format", "nsfw_score"} <= set(stats(uri).untold)


def test_a_shard_that_is_missing_is_named(make_set, tmp_path: Path):
    make_set(20, 10)
    found = stats(f"{tmp_path}/set/{{00000..00002}}.tar")
    assert found.damaged_shards == {"missing": 1}
    assert "of the shards 1 missing" in table(found)
