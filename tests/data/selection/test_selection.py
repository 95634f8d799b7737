"""What is kept, filtered and faulty: against a loop over the records, and never a sample unaccounted for."""

import dataclasses
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalle2_train.data.config import DataConfig
from dalle2_train.data.selection.filters import FilterConfig
from dalle2_train.data.selection.selection import select, sort_out
from dalle2_train.data.shards.index import publish_index
from dalle2_train.data.shards.manifest import Shard, ShardManifest, ShardSet, publish
from dalle2_train.data.shards.shard_index import ShardIndex, index_of
from dalle2_train.data.shards.writer import write_shards
from dalle2_train.data.stream.batches import UpsamplerBatch
from dalle2_train.data.stream.stream import Stream
from dalle2_train.errors import InputError

Rows = Sequence[Mapping[str, Any]]


class SetInMemory(ShardSet):
    """A set whose indexes are handed over, with `lost` samples more promised by each shard."""

    def __init__(self, shards: Sequence[Rows], lost: Sequence[int] = ()) -> None:
        self.rows = [index_of([place(row) for row in rows]) for rows in shards]
        lost = lost or [0] * len(shards)
        super().__init__("memory", ShardManifest(tuple(map(entry, range(len(shards)), self.rows, lost))))

    def index(self, number: int) -> ShardIndex:
        return self.rows[number]


def place(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"offset": 0, "length": 512, "crc32": 0, "split": "train", **row}


def entry(number: int, rows: ShardIndex, lost: int) -> Shard:
    splits = dict(Counter(rows.splits))
    return Shard(f"{number:05d}.tar", 10, f"{number:064x}", len(rows), splits, len(rows) + lost)


def keyed(rows: Rows) -> list[dict[str, Any]]:
    return [{"key": f"{i:04d}", **row} for i, row in enumerate(rows)]


def kept_keys(shards: SetInMemory, filters: FilterConfig, split: str | None = "train") -> list[str]:
    found = select(shards, split, filters)
    places = [found.place(number) for number in range(len(found))]
    return [shards.rows[place.shard].keys[place.position] for place in places]


# The loop that the vectorised filters must agree with.


def verdicts(row: Mapping[str, Any], config: FilterConfig, listed: set[str]) -> list[str]:
    """Every filter but `duplicates` that drops a record, in the order of precedence."""

    def asks(name: str, bound: Any, columns: tuple[str, ...], keeps: Callable[..., bool]) -> None:
        if bound is None or bound == ():
            return
        values = [row.get(column) for column in columns]
        untold = any(value is None for value in values)
        if (untold and not config.keep_untold) or (not untold and not keeps(*values)):
            found.append(name)

    found: list[str] = []
    c = config
    asks("min_width", c.min_width, ("width",), lambda width: width >= c.min_width)
    asks("min_height", c.min_height, ("height",), lambda height: height >= c.min_height)
    asks("max_aspect", c.max_aspect, ("width", "height"), lambda w, h: max(w / h, h / w) <= c.max_aspect)
    asks("min_caption_length", c.min_caption_length, ("caption_length",), lambda n: n >= c.min_caption_length)
    asks("max_caption_length", c.max_caption_length, ("caption_length",), lambda n: n <= c.max_caption_length)
    asks("min_similarity", c.min_similarity, ("similarity",), lambda x: x >= c.min_similarity)
    asks("min_aesthetic", c.min_aesthetic, ("aesthetic",), lambda x: x >= c.min_aesthetic)
    asks("max_punsafe", c.max_punsafe, ("punsafe",), lambda x: x <= c.max_punsafe)
    asks("max_pwatermark", c.max_pwatermark, ("pwatermark",), lambda x: x <= c.max_pwatermark)
    asks("nsfw", c.nsfw, ("nsfw",), lambda word: word.upper() in {w.upper() for w in c.nsfw})
    asks("languages", c.languages, ("language",), lambda word: word in c.languages)
    asks("opt_out", c.opt_out, ("url",), lambda url: not on_list(url, listed))
    return found


def on_list(url: str, domains: set[str]) -> bool:
    host = urlsplit(url).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def account(shards: Sequence[Rows], lost: Sequence[int], config: FilterConfig, listed: set[str]):
    """(kept keys by shard, filtered, faulty) by one look at every record."""
    kept, filtered, faulty = [], Counter(), Counter()
    faulty["count"] += sum(lost)
    seen: set[Any] = set()
    for rows in shards:
        in_shard: set[str] = set()
        kept.append([])
        for row in rows:
            fault = row.get("fault") or ("duplicate" if row["key"] in in_shard else None)
            in_shard.add(row["key"])
            names = verdicts(row, config, listed)
            if fault is not None:
                faulty[fault] += 1
            elif row["split"] != "train":
                filtered["split"] += 1
            elif names:
                filtered[names[0]] += 1
            elif config.duplicates != "keep" and is_again(row, config, seen):
                filtered["duplicates"] += 1
            else:
                kept[-1].append(row["key"])
    return kept, dict(filtered), {kind: count for kind, count in faulty.items() if count}


def is_again(row: Mapping[str, Any], config: FilterConfig, seen: set[Any]) -> bool:
    value = row.get(config.duplicates)
    if value is None:
        return not config.keep_untold
    if value in seen:
        return True
    seen.add(value)
    return False


HOSTS = ("a.org", "www.a.org", "img.a.org", "xa.org", "b.org", "cdn.c.b.org", "notb.org")
ROWS = st.fixed_dictionaries(
    {
        "key": st.text(string.digits, min_size=1, max_size=1),
        "split": st.sampled_from(["train", "train", "train", "validation"]),
        "fault": st.sampled_from([None, None, None, "duplicate"]),
        "width": st.none() | st.integers(1, 9),
        "height": st.none() | st.integers(1, 9),
        "caption_length": st.none() | st.integers(0, 9),
        "similarity": st.none() | st.sampled_from([0.1, 0.2, 0.3]),
        "aesthetic": st.none() | st.sampled_from([3.5, 5.0, 6.5]),
        "punsafe": st.none() | st.sampled_from([0.0, 0.5, 1.0]),
        "pwatermark": st.none() | st.sampled_from([0.0, 0.5, 1.0]),
        "nsfw": st.none() | st.sampled_from(["UNLIKELY", "unlikely", "UNSURE", "NSFW"]),
        "language": st.none() | st.sampled_from(["en", "de", "nolang"]),
        "url": st.none() | st.sampled_from([f"https://{host}/cat.jpg" for host in HOSTS]),
        "hash": st.none() | st.text("ab", min_size=1, max_size=2),
    }
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | st.none() | values


CONFIGS = st.fixed_dictionaries(
    {
        "min_width": maybe(st.integers(0, 9)),
        "min_height": maybe(st.integers(0, 9)),
        "max_aspect": maybe(st.sampled_from([1.0, 1.5, 3.0])),
        "min_caption_length": maybe(st.integers(0, 4)),
        "max_caption_length": maybe(st.integers(4, 9)),
        "min_similarity": maybe(st.sampled_from([0.2, 0.25])),
        "min_aesthetic": maybe(st.sampled_from([5.0])),
        "max_punsafe": maybe(st.sampled_from([0.0, 0.5])),
        "max_pwatermark": maybe(st.sampled_from([0.5])),
        "nsfw": st.sampled_from([(), (), ("UNLIKELY",), ("unsure", "UNLIKELY")]),
        "languages": st.sampled_from([(), (), ("en",), ("en", "de")]),
        "duplicates": st.sampled_from(["keep", "key", "hash"]),
        "keep_untold": st.booleans(),
    }
)
SHARDS = st.lists(st.lists(ROWS, max_size=8), min_size=1, max_size=4)
LOST = st.lists(st.integers(0, 3), min_size=4, max_size=4)
LISTS = st.none() | st.sets(st.sampled_from(["a.org", "b.org", "c.b.org", "cdn.c.b.org"]), min_size=1)
# Every record has everything, so that no filter is refused for want of a record that tells.
TELLS_ALL = {
    **{"key": "whole", "split": "train", "width": 5, "height": 5, "caption_length": 4, "similarity": 0.3},
    **{"aesthetic": 6.5, "punsafe": 0.0, "pwatermark": 0.0, "nsfw": "UNLIKELY", "language": "en"},
    **{"url": "https://fine.example/x.png", "hash": "whole"},
}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SHARDS, LOST, CONFIGS, LISTS)
def test_the_ledger_is_what_a_loop_over_the_records_finds(
    tmp_path: Path, shards: list[list[dict[str, Any]]], lost: list[int], config: dict[str, Any], listed
):
    shards = [[TELLS_ALL], *shards]
    lost = [0, *lost][: len(shards)]
    if listed is not None:
        (tmp_path / "list.txt").write_text("\n".join(sorted(listed)))
        config = {**config, "opt_out": str(tmp_path / "list.txt")}
    filters = FilterConfig(**config)
    found = sort_out(SetInMemory(shards, lost), "train", filters)
    kept, filtered, faulty = account(shards, lost, filters, listed or set())
    keys = [
        [rows[p]["key"] for p in positions] for rows, positions in zip(shards, found.positions, strict=True)
    ]
    assert keys == kept
    assert (found.ledger.filtered, found.ledger.faulty) == (filtered, faulty)
    assert found.ledger.expected == sum(map(len, shards)) + sum(lost)
    assert found.ledger.expected == len(found) + sum(filtered.values()) + sum(faulty.values())


def test_a_sample_that_several_filters_drop_counts_for_the_first():
    rows = keyed([{"width": 1, "height": 1, "similarity": 0.1}, {"width": 9, "height": 9, "similarity": 0.3}])
    filters = FilterConfig(min_similarity=0.2, min_height=5, min_width=5)
    assert select(SetInMemory([rows]), "train", filters).ledger.filtered == {"min_width": 1}


def test_the_first_duplicate_that_nothing_else_drops_stays():
    shards = SetInMemory(
        [
            [
                {"key": "small", "hash": "x", "width": 1},
                {"key": "held out", "hash": "x", "split": "validation"},
            ],
            [{"key": "damaged", "hash": "x", "width": 9, "fault": "duplicate"}],
            [{"key": "first", "hash": "x", "width": 9}, {"key": "again", "hash": "x", "width": 9}],
            [{"key": "later", "hash": "x", "width": 9}, {"key": "other", "hash": "y", "width": 9}],
        ]
    )
    filters = FilterConfig(min_width=5, duplicates="hash")
    assert kept_keys(shards, filters) == ["first", "other"]
    assert select(shards, "train", filters).ledger.filtered == {"split": 1, "min_width": 1, "duplicates": 2}


@pytest.mark.parametrize("keep_untold", [False, True])
@pytest.mark.parametrize(
    ("column", "config"),
    [
        ("aesthetic", {"min_aesthetic": 5.0}),
        ("nsfw", {"nsfw": ("UNLIKELY",)}),
        ("language", {"languages": ("en",)}),
        ("hash", {"duplicates": "hash"}),
        ("nsfw_score", {"max_nsfw_score": 0.5}),
        ("height", {"max_aspect": 2.0}),
    ],
)
def test_a_filter_on_what_no_record_tells_is_refused(column: str, config: dict[str, Any], keep_untold: bool):
    rows = keyed([{"width": 5}, {"width": 6}, {"aesthetic": 9.0, "split": "validation"}])
    (name,) = config
    with pytest.raises(InputError, match=rf"data\.filters\.{name} .*'{column}'.*'train'"):
        select(SetInMemory([rows]), "train", FilterConfig(keep_untold=keep_untold, **config))
    if column == "aesthetic":
        assert kept_keys(SetInMemory([rows]), FilterConfig(**config), "validation") == ["0002"]


def test_an_opt_out_list_of_hashes_is_refused_where_no_record_has_one(tmp_path: Path):
    (tmp_path / "list.txt").write_text(f"bad.example\n{'ab' * 32}\n")
    rows = keyed([{"url": "https://good.example/1"}])
    with pytest.raises(InputError, match="opt_out asks for 'hash'"):
        select(SetInMemory([rows]), "train", FilterConfig(opt_out=str(tmp_path / "list.txt")))


def test_nothing_left_tells_where_all_went():
    rows = keyed([{"width": 5}, {"width": 6}])
    with pytest.raises(InputError, match=r"no sample is left.*'min_width': 2"):
        select(SetInMemory([rows]), "train", FilterConfig(min_width=7))


def test_another_filter_score_or_list_is_another_digest_and_the_same_data_is_not(tmp_path: Path):
    rows = keyed([{"width": 1 + i, "url": f"https://{host}/cat.png"} for i, host in enumerate(HOSTS)])
    plain = select(SetInMemory([rows]), "train").digest
    assert select(SetInMemory([rows]), "train", FilterConfig(min_width=1)).digest == plain
    assert select(SetInMemory([rows]), "train", FilterConfig(min_width=2)).digest != plain
    listing = tmp_path / "list.txt"
    filters = FilterConfig(opt_out=str(listing))
    listing.write_text("b.org")
    once = select(SetInMemory([rows]), "train", filters).digest
    assert select(SetInMemory([rows]), "train", filters).digest == once != plain
    listing.write_text("b.org\na.org")
    assert select(SetInMemory([rows]), "train", filters).digest != once


def test_a_run_resumed_with_another_opt_out_list_is_told(squares: SimpleNamespace, tmp_path: Path):
    listing = tmp_path / "list.txt"
    records = (
        record._replace(fields={**record.fields, "url": f"https://host{i % 4}.example/{i}.png"})
        for i, record in enumerate(squares.records(40))
    )
    uri = str(tmp_path / "set")
    write_shards(records, uri, {"kind": "urls"})

    def stream(state=None) -> Stream:
        config = DataConfig(image_size=squares.SIDE, filters=FilterConfig(opt_out=str(listing)))
        return Stream(uri, config, seed=1, global_batch_size=8, batch_type=UpsamplerBatch, state=state)

    listing.write_text("host1.example")
    opened = stream()
    assert opened.ledger[""].filtered == {"opt_out": 10}
    _, state = next(iter(opened))
    stream(state)
    listing.write_text("host1.example\nhost2.example")
    with pytest.raises(InputError, match="opt-out list"):
        stream(state)


def test_a_set_in_storage(tmp_path: Path):
    """The same as in memory, through the files."""
    rows = index_of([place(row) for row in keyed([{"width": 3}, {"width": None}, {"width": 9}])])
    shard = dataclasses.replace(entry(0, rows, 2), problem="truncated")
    home = str(tmp_path)
    publish_index(home, shard, rows)
    publish(ShardManifest((shard,)), home)
    found = select(ShardSet(home, ShardManifest((shard,))), "train", FilterConfig(min_width=4))
    assert [p.tolist() for p in found.positions] == [[2]]
    assert (found.ledger.filtered, found.ledger.faulty) == ({"min_width": 2}, {"truncated": 2})
    assert found.ledger.expected == 5
