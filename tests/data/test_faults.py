"""One list of kinds, for the code and for its readers."""

import re
from pathlib import Path

import pytest

from dalle2_train.data.faults import SAMPLE_KINDS, SHARD_KINDS, Fault

DOCS = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.mark.parametrize(("title", "kinds"), [("of a shard", SHARD_KINDS), ("of a sample", SAMPLE_KINDS)])
def test_the_documentation_lists_every_kind(title: str, kinds: dict[str, str]):
    table = DOCS.read_text().split(f"| fault | {title} |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert rows == kinds


def test_a_fault_is_of_a_listed_kind():
    for key, kind in ((None, "no_image"), ("1", "not_a_tar"), ("1", "odd")):
        with pytest.raises(AssertionError):
            Fault("a.tar", key, kind)


def test_a_fault_says_how_many_samples_it_costs():
    assert Fault("a.tar", "1", "no_image").num_samples == 1
    assert Fault("a.tar", None, "truncated", "cut", 7).num_samples == 7
