"""A training on shards with everything wrong: it goes on, and says of every sample what became of it."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hostile import OF_CAPTIONS, PER_SHARD
from hostile_cases import CASES, EXECUTED
from tiny_clip import CONFIG as CLIP

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri
from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.config import to_dict
from dalle2_train.data.stream.order_state import OrderState
from dalle2_train.errors import RefusedError
from dalle2_train.launch import train

SMALL = [case for case in CASES if "as large as" not in case.name and "over the cap" not in case.name]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One set of the spoilt shards of all cases, and one whole shard."""
    folder = tmp_path_factory.mktemp("everything")
    (folder / "set").mkdir()
    for number, case in enumerate(SMALL):
        case.build(folder / f"case-{number}")
        for file in (folder / f"case-{number}").glob("00001*"):
            shutil.move(file, folder / "set" / file.name.replace("00001", f"{number + 1:05d}"))
    for file in (folder / "case-0").glob("00000*"):
        shutil.move(file, folder / "set" / file.name)
    return folder / "set"


CLIP_SETTINGS = (
    *(f"model.encoder.{name}={value}" for name, value in to_dict(CLIP).items()),
    "data.image_size=16",
    "data.block_size=4",
    "training.global_batch_size=8",
    "training.num_threads=1",
)
# Family, its settings, and whether it reads captions: where none are read, what is wrong with them is no fault.
FAMILIES = [
    ("upsampler", (), False),
    ("clip", CLIP_SETTINGS, True),
]


@pytest.mark.parametrize(
    ("family", "settings", "reads_captions"), FAMILIES, ids=[name for name, *_ in FAMILIES]
)
def test_a_training_survives_everything_and_accounts_for_it(
    make_job, everything: Path, family: str, settings: tuple[str, ...], reads_captions: bool
):
    unread = 0 if reads_captions else sum(case.uncaptioned for case in SMALL)
    delivered = PER_SHARD + sum(case.delivered - PER_SHARD for case in SMALL) + unread
    expected = PER_SHARD + sum(case.expected - PER_SHARD for case in SMALL)
    steps = math.ceil(expected / 8)
    job = make_job("run", *settings, f"training.num_steps={steps}", "training.sample_every_steps=0",
                   "data.max_faulty=1", "data.cache_megabytes=0", "data.split=train", family=family)  # fmt: skip
    assert train(replace(job, data=str(everything))).step == steps

    ledger = storage.read_json(f"{job.run_uri}/data/ledger.json")["sources"][""]
    lines = [json.loads(line) for line in Path(job.run_uri, "data/faults.jsonl").read_text().splitlines()]
    known, met = ([line for line in lines if (line["step"] == 0) is first] for first in (True, False))
    lost = sum(line["num_lost"] if line["key"] is None else 1 for line in known)
    assert lost == sum(ledger["faulty"].values())
    assert ledger["expected"] == expected == ledger["kept"] + lost + sum(ledger["filtered"].values())
    assert len({(line["shard"], line["key"]) for line in met}) == len(met)
    assert ledger["kept"] - len(met) == delivered
    assert any(line["kind"] in OF_CAPTIONS for line in met) is reads_captions
    state = OrderState.from_json(read_manifest(checkpoint_uri(job.run_uri, steps)).order)
    assert sum(state.delivered) == 8 * steps and sum(state.quarantined) >= len(met)
    assert not (everything.parent / EXECUTED).exists()


def test_so_much_damage_is_refused_unless_it_is_allowed(make_job, everything: Path):
    job = make_job("refused", "training.num_steps=1", "training.sample_every_steps=0")
    with pytest.raises(RefusedError, match=r"samples are lost or faulty.*data\.max_faulty=0\.01.*\.tar"):
        train(replace(job, data=str(everything)))
    assert storage.read_json(f"{job.run_uri}/progress.json")["step"] == 0
