"""What is wrong with the data of a run: kept once, counted, and a reason for all ranks to stop together."""

import json
from collections import Counter
from pathlib import Path

import pytest
from processes import run_ranks
from toy_training import losses, train_alone

from dalle2_train import storage
from dalle2_train.checkpoints.layout import committed_steps
from dalle2_train.data.faults import Fault
from dalle2_train.errors import RefusedError
from dalle2_train.training.quarantine import FaultRecord


class Recorded:
    def __init__(self):
        self.values, self.documents = {}, {}

    def metrics(self, step, values):
        self.values.setdefault(step, {}).update(values)

    def document(self, name, value):
        self.documents[name] = value

    def image(self, name, step, image): ...

    def finish(self, status): ...

    def abandon(self): ...


def lines(run: object) -> list[dict]:
    return [json.loads(line) for line in Path(f"{run}/data/faults.jsonl").read_text().splitlines()]


def test_a_run_keeps_its_faults_and_counts_them(tmp_path):
    run, recorder = str(tmp_path / "run"), Recorded()
    train_alone(run, recorder=recorder, data={"faults_per_step": (1,), "max_faulty": 1, "num_lost": 3})
    found = lines(run)
    assert found[0] == {
        "step": 0,
        "shard": "lost.tar",
        "key": None,
        "kind": "truncated",
        "reason": "cut",
        "num_lost": 3,
    }
    assert Counter(line["kind"] for line in found) == {"truncated": 1, "broken_image": 12}
    assert found[5]["reason"] == "not a picture" and found[5]["step"] == 6
    assert recorder.values[4]["faults/broken_image"] == 4
    assert recorder.values[12]["faults/broken_image"] == 12 and recorder.values[12]["faults/truncated"] == 1
    ledger = {"expected": 1000, "kept": 997, "filtered": {}, "faulty": {"truncated": 3}}
    kept = storage.read_json(f"{run}/data/ledger.json")
    assert kept == recorder.documents["data/ledger.json"]
    assert kept["max_faulty"] == 1 and kept["sources"][""].items() >= ledger.items()


def test_faults_met_again_after_a_restart_are_kept_once(tmp_path):
    run = str(tmp_path / "run")
    data = {"faults_per_step": (2,), "max_faulty": 1}
    # It fails at step 10 and goes on from the checkpoint of step 8.
    with pytest.raises(RefusedError, match=r"00007\.tar"):
        train_alone(run, data={**data, "ends": (0, 9)}, log_every_steps=1)
    assert committed_steps(run) == [4, 8] and len(lines(run)) == 18
    assert train_alone(run, data=data, log_every_steps=1).resumed_from == 8
    found = [(line["shard"], line["key"]) for line in lines(run)]
    assert len(found) == len(set(found)) == 24


def test_too_many_faults_end_a_run_with_the_shards_name(tmp_path):
    run = str(tmp_path / "run")
    with pytest.raises(RefusedError, match=r"12 of the 60 samples.*step 6.*12, in 00000\.tar.*faults\.jsonl"):
        train_alone(run, data={"faults_per_step": (2,), "max_faulty": 0.1})
    assert len(lines(run)) == 12 and len(losses(run)) == 6
    assert storage.read_json(f"{run}/progress.json")["status"] == "refused"


def test_few_faults_stop_nothing(tmp_path):
    run = str(tmp_path / "run")
    assert train_alone(run, data={"faults_per_step": (5,), "faulty_from": 10, "max_faulty": 0}).step == 12
    with pytest.raises(RefusedError, match="15 of the 111"):
        train_alone(f"{run}-more", data={"faults_per_step": (5,), "faulty_from": 9, "max_faulty": 0})


def test_losses_that_are_known_refuse_the_start(tmp_path):
    run = str(tmp_path / "run")
    with pytest.raises(RefusedError, match=r"11 of 1000 samples.*11, in lost\.tar"):
        train_alone(run, data={"num_lost": 11})
    assert not Path(run, "losses.jsonl").exists() and lines(run)[0]["shard"] == "lost.tar"
    assert train_alone(f"{run}-fewer", data={"num_lost": 10}).step == 12
    assert train_alone(f"{run}-allowed", data={"num_lost": 11, "max_faulty": 0.1}).step == 12


@pytest.mark.system
def test_all_ranks_stop_at_the_step_at_which_one_has_met_too_much(tmp_path):
    run = tmp_path / "run"
    results = run_ranks(run, 2, data={"faults_per_step": (0, 3), "faulty_from": 2, "max_faulty": 0.1})
    assert all(code != 0 for code, _ in results)
    ends = [error.strip().splitlines()[-1] for _, error in results]
    assert ends[0] == ends[1]
    assert "RefusedError: 12 of the 60 samples met up to step 6" in ends[0] and "12, in 00001.tar" in ends[0]
    assert len(lines(run)) == 12 and len(losses(str(run))) == 6


@pytest.mark.system
@pytest.mark.parametrize("step", [0, 5])
def test_all_ranks_stop_when_one_has_no_batch(tmp_path, step):
    run = tmp_path / "run"
    results = run_ranks(run, 2, data={"ends": (1, step)})
    assert [code != 0 for code, _ in results] == [True, True]
    for _, error in results:
        assert error.strip().splitlines()[-1].endswith("RefusedError: nothing but damage in 00007.tar")
    assert len(losses(str(run))) == step


def test_the_record_outlives_a_remote_run():
    run = "memory://quarantine/run"
    record = FaultRecord(run)
    record.tell(3, [Fault("a.tar", "1", "no_image"), Fault("a.tar", "1", "no_image")])
    record.close()
    again = FaultRecord(run)
    again.tell(
        4,
        [
            Fault("a.tar", "1", "no_image"),
            Fault("a.tar", "2", "no_image"),
            Fault("b.tar", None, "count", "", 7),
        ],
    )
    again.close()
    assert again.by_kind == {"no_image": 2, "count": 1} and again.by_shard.most_common(1) == [("b.tar", 7)]
    keys = [json.loads(line)["key"] for line in storage.read_bytes(f"{run}/data/faults.jsonl").splitlines()]
    assert keys == ["1", "2", None]
