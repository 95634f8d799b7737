"""Many want a lease at the same moment: one gets it, whatever was there before."""

from dataclasses import replace
from pathlib import Path

import pytest
from forked import Forked

from dalle2_train import storage
from dalle2_train.checkpoints.holder import Holder, read_holder
from dalle2_train.checkpoints.layout import lease_uri
from dalle2_train.checkpoints.lease import Lease
from dalle2_train.checkpoints.succession import claim_uri, take
from dalle2_train.errors import InputError

NUM_RACERS, NUM_ROUNDS = 5, 25


def dead() -> Holder:
    """A process of this machine that has ended."""
    return replace(Holder.me(), started=1.0)


def leave_nothing(run: str) -> None:
    pass


def leave_lease(run: str) -> None:
    """Its holder was killed."""
    storage.publish_bytes(lease_uri(run), dead().to_bytes())


def leave_no_lease(run: str) -> None:
    """The file is damaged."""
    storage.publish_bytes(lease_uri(run), b"")


def leave_claim(run: str) -> None:
    """Who wanted to follow a killed holder was killed too, between its two moves."""
    leave_lease(run)
    uri = lease_uri(run)
    storage.publish_bytes(claim_uri(uri, storage.read_bytes(uri)), dead().to_bytes())


LEFT = [leave_nothing, leave_lease, leave_no_lease, leave_claim]


@pytest.mark.parametrize("leave", LEFT)
def test_of_those_that_start_at_once_one_goes_on(tmp_path: Path, leave):
    runs = [str(tmp_path / f"run{number}") for number in range(NUM_ROUNDS)]
    for run in runs:
        leave(run)
        (tmp_path / "told" / Path(run).name).mkdir(parents=True)
    racers = Forked("lease_racers")
    barrier = racers.barrier(NUM_RACERS)
    racers.finish(
        [racers.start("race", barrier, runs, tmp_path / "told", seed) for seed in range(NUM_RACERS)]
    )
    assert [len(list((tmp_path / "told" / Path(run).name).iterdir())) for run in runs] == [1] * NUM_ROUNDS
    assert [file.name for run in runs for file in Path(run).glob("*")] == [], "and nothing is left"


@pytest.mark.parametrize("leave", LEFT)
def test_who_comes_alone_gets_it_at_once(tmp_path: Path, leave):
    run = str(tmp_path)
    leave(run)
    with Lease(run) as lease:
        assert read_holder(lease.uri) == lease.holder
        assert [file.name for file in tmp_path.iterdir()] == ["lease.json"]


def test_who_is_killed_between_its_two_moves_is_followed(tmp_path: Path, monkeypatch):
    run, uri = str(tmp_path), lease_uri(str(tmp_path))
    leave_lease(run)
    with monkeypatch.context() as killed:
        killed.setattr(storage, "rename", lambda *_: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            take(uri, dead(), lambda *_: True)
    with Lease(run) as lease:
        assert read_holder(uri) == lease.holder
        assert [file.name for file in tmp_path.iterdir()] == ["lease.json"]


def test_who_read_too_early_does_not_take_away_a_new_lease(tmp_path: Path):
    """Another has followed the dead holder, and is done with its claim, while we look whether it is dead."""
    uri = lease_uri(str(tmp_path))
    leave_lease(str(tmp_path))
    other = Holder.me()

    def slowly(uri: str, holder: Holder) -> bool:
        assert holder.is_dead and take(uri, other, lambda *_: True)
        return True

    assert not take(uri, Holder.me(), slowly)
    assert read_holder(uri) == other
    assert [file.name for file in tmp_path.iterdir()] == ["lease.json"]


def test_who_makes_a_claim_on_another_machine_and_is_gone_is_waited_for(tmp_path: Path, capsys):
    leave_claim(str(tmp_path))
    (claim,) = tmp_path.glob(".partial-after-*")
    claim.write_bytes(replace(dead(), host="elsewhere").to_bytes())
    with Lease(str(tmp_path), seconds=0.4):
        assert "held from elsewhere" in capsys.readouterr().err


def test_a_claim_of_a_living_process_is_left_to_it(tmp_path: Path):
    leave_claim(str(tmp_path))
    (claim,) = tmp_path.glob(".partial-after-*")
    claim.write_bytes(Holder.me().to_bytes())
    with pytest.raises(InputError, match=r"process \d+ of this machine"), Lease(str(tmp_path)):
        pass
    assert claim.exists()


def test_a_rename_that_was_done_without_an_answer_counts(tmp_path: Path, monkeypatch):
    leave_lease(str(tmp_path))
    rename = storage.rename

    def twice(uri: str, to: str) -> None:
        rename(uri, to)
        rename(uri, to)

    monkeypatch.setattr(storage, "rename", twice)
    with Lease(str(tmp_path)) as lease:
        assert read_holder(lease.uri) == lease.holder
