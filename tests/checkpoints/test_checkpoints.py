"""What is committed is whole, old ones go, and released weights are the averages."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from traceback import StackSummary

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint import CheckpointException

from dalle2_train import storage
from dalle2_train.checkpoints import ModelManifest, consolidate, load, model_digest, open_model, retention
from dalle2_train.checkpoints.consolidate import averaged_weights
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, model_uri, started_steps
from dalle2_train.checkpoints.load import load_into, newest_whole
from dalle2_train.checkpoints.manifest import find_faults, read_manifest
from dalle2_train.checkpoints.retention import Keep, finish_removals
from dalle2_train.checkpoints.save import Guard, Snapshot, save
from dalle2_train.checkpoints.state import restore_optimizer, state_of
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.parallel.shard import ParallelConfig

MANIFEST = ModelManifest(
    kind="prior", config={"width": 3}, recipe={"training": {"seed": 0}}, order={"step": 1}
)


@pytest.fixture(autouse=True)
def _group():
    with one_rank_strategy(ParallelConfig()):
        yield


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path):
    return str(tmp_path / "run") if request.param == "local" else f"memory://checkpoints/{tmp_path.name}"


class Trained:
    """A network after two steps, and an average that is not its weights."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.1, fused=True)
        for _ in range(2):
            self.network(torch.randn(2, 3, 5, 5)).square().sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.averages = {name: p.detach() + 1 for name, p in self.network.named_parameters()}

    def save(
        self,
        run: str,
        step: int,
        keep: Keep = Keep(2),  # noqa: B008 - it is frozen
        loss: float | None = None,
        guard: Guard = Guard(),  # noqa: B008 - likewise
    ) -> str:
        state = state_of(self.network, self.averages, self.optimizer)
        manifest = replace(MANIFEST, step=step, loss=loss)
        return save(run, Snapshot(state, manifest, {"words.txt": b"a b"}), keep, guard)


def test_everything_comes_back(run):
    saved, fresh = Trained(0), Trained(1)
    saved.save(run, 7)
    folder, manifest = newest_whole(run)
    assert manifest.step == 7 and manifest.order == {"step": 1} and manifest.is_sharded
    state = state_of(fresh.network, fresh.averages, fresh.optimizer)
    load_into(folder, state)
    restore_optimizer(fresh.network, fresh.optimizer, state)
    for ours, theirs in zip(
        fresh.network.state_dict().values(), saved.network.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert all(torch.equal(fresh.averages[name], saved.averages[name]) for name in saved.averages)
    ours, theirs = fresh.optimizer.state_dict()["state"], saved.optimizer.state_dict()["state"]
    assert all(torch.equal(ours[i][name], theirs[i][name]) for i in theirs for name in theirs[i])


def test_the_last_ones_are_kept(run):
    trained = Trained()
    # What a killed process leaves: files, but no manifest.
    storage.publish_bytes(storage.join(checkpoint_uri(run, 2), "__0_0.distcp"), b"half")
    for step in (1, 3, 4):
        trained.save(run, step)
    assert started_steps(run) == committed_steps(run) == [3, 4]


def test_what_a_killed_process_left_of_old_ones_is_removed_and_what_is_in_the_making_stays(run):
    trained = Trained()
    for step in (4, 6):
        trained.save(run, step)
    for step in (2, 9):
        storage.publish_bytes(storage.join(checkpoint_uri(run, step), "__0_0.distcp"), b"half")
    finish_removals(run)
    assert started_steps(run) == [4, 6, 9] and committed_steps(run) == [4, 6]


def test_the_best_ones_are_kept_beside_the_newest(run):
    trained = Trained()
    for step, loss in enumerate((0.5, 0.1, 0.4, 0.3, None, 0.6), 1):
        trained.save(run, step, Keep(1, 2), loss)
    assert committed_steps(run) == [2, 4, 6]


def test_damaged_ones_that_were_passed_over_take_no_place(run):
    trained = Trained()
    for step in (1, 4, 5):
        trained.save(run, step, Keep(3))
    for step in (4, 5):
        storage.publish_bytes(storage.join(checkpoint_uri(run, step), "__0_0.distcp"), b"damaged")
    keep = Keep(2, damaged=frozenset({4, 5}))
    trained.save(run, 2, keep)  # the run went on from step 1
    assert committed_steps(run) == [1, 2, 4, 5] and newest_whole(run)[1].step == 2
    trained.save(run, 6, keep)
    assert committed_steps(run) == [2, 6]
    trained.save(run, 7, keep)
    assert committed_steps(run) == [6, 7]


def test_who_does_not_own_the_run_any_more_changes_nothing(run):
    trained, asked, flushed = Trained(), [], []

    def owner_until(number: int) -> None:
        asked.append(number)
        if len(asked) == number:
            raise InputError("taken over")

    before = trained.save(run, 3)
    digest = read_manifest(before).files["__0_0.distcp"].sha256
    for number in (1, 2, 3):
        asked.clear()
        flushed.clear()
        with pytest.raises(InputError, match="taken over"):
            Trained(1).save(
                run, 2 + number, guard=Guard(partial(owner_until, number), lambda: flushed.append(1))
            )
        # What it has recorded took the place of the new owner's only where nothing was known of that one.
        assert len(flushed) == (number == 3)
    # Asked first of all, it touched nothing; asked later, what it wrote does not count.
    manifest = read_manifest(before)
    assert manifest.files["__0_0.distcp"].sha256 == digest and find_faults(before, manifest) == []
    assert committed_steps(run) == [3]


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), ValueError("of another kind")])
def test_averages_are_read_from_storage_that_fails_in_passing_and_from_no_other(run, monkeypatch, error):
    trained, real, calls = Trained(), dcp.load, []
    folder = trained.save(run, 3)

    def flaky(*arguments, **options):
        calls.append(1)
        if len(calls) == 1:
            raise CheckpointException("reading", {0: (error, StackSummary())})
        return real(*arguments, **options)

    monkeypatch.setattr(dcp, "load", flaky)
    monkeypatch.setattr(load, "_PAUSES", (0.0,))
    if isinstance(error, ValueError):
        # An OSError is one that ranks tell each other, and a run ends with; DCP's own is no Exception.
        with pytest.raises(OSError, match="of another kind"):
            averaged_weights(folder)
        return
    weights = averaged_weights(folder)
    assert len(calls) == 2
    assert all(torch.equal(weights[name], average) for name, average in trained.averages.items())


def test_old_ones_that_cannot_be_removed_fail_no_new_one(run, monkeypatch, capsys):
    trained = Trained()
    trained.save(run, 1, Keep(1))
    monkeypatch.setattr(retention, "remove_checkpoint", _refuse)
    trained.save(run, 2, Keep(1))
    assert committed_steps(run) == [1, 2] and "could not be removed: in use" in capsys.readouterr().err
    monkeypatch.undo()
    trained.save(run, 3, Keep(1))
    assert committed_steps(run) == [3]


def _refuse(*_):
    raise OSError("in use")


def test_a_checkpoint_is_written_again_over_what_was_left_of_it(run):
    storage.publish_bytes(storage.join(checkpoint_uri(run, 3), "__7_0.distcp"), b"of a larger world")
    folder = Trained().save(run, 3)
    assert not storage.exists(storage.join(folder, "__7_0.distcp"))
    assert find_faults(folder, read_manifest(folder)) == []


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_damage_is_found_and_the_older_one_taken(tmp_path, damage, capsys):
    run, trained = str(tmp_path / "run"), Trained()
    trained.save(run, 1)
    folder = Path(trained.save(run, 2))
    victim = folder / ("manifest.json" if damage == "manifest" else "__0_0.distcp")
    data = bytearray(victim.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(bytes(data) if damage == "flip" else bytes(data[: len(data) // 2]))
    folder, manifest = newest_whole(run)
    assert manifest.step == 1
    assert "step-00000002 is not whole" in capsys.readouterr().err


def test_no_checkpoint_is_none(tmp_path):
    assert newest_whole(str(tmp_path / "nothing")) is None


def test_released_weights_are_the_averages_and_buffers(run, tmp_path):
    trained = Trained()
    checkpoint = trained.save(run, 5)
    released = consolidate(checkpoint, model_uri(run), extra_files={"words.txt": b"a b"})
    assert set(released.files) == {"model.safetensors", "words.txt"} and released.step == 5
    expected = trained.network.state_dict() | trained.averages
    for uri in (run, checkpoint, model_uri(run)):
        manifest, weights = open_model(uri)
        assert manifest.kind == "prior" and set(weights) == set(expected)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
    local = tmp_path / "copy"
    storage.download_tree(model_uri(run), local)
    assert torch.equal(load_file(local / "model.safetensors")["0.weight"], expected["0.weight"])


def test_a_family_may_release_its_own_form(tmp_path):
    checkpoint = Trained().save(str(tmp_path / "run"), 5)

    def write(weights, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "names.json").write_text(json.dumps(sorted(weights)))

    manifest = consolidate(checkpoint, str(tmp_path / "model"), write)
    assert set(manifest.files) == {"sub/names.json"}


def test_damaged_weights_are_refused(tmp_path):
    run = str(tmp_path / "run")
    consolidate(Trained().save(run, 5), model_uri(run))
    path = Path(model_uri(run), "model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RefusedError, match=r"model\.safetensors is damaged"):
        open_model(run)


def test_nothing_there_and_newer_formats_are_told(tmp_path):
    with pytest.raises(InputError, match="no model here"):
        open_model(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="upgrade"):
        open_model(str(tmp_path))


def test_a_digest_names_a_model(tmp_path):
    run = str(tmp_path / "run")
    one = consolidate(Trained(0).save(run, 5), str(tmp_path / "a"))
    same = consolidate(Trained(0).save(run, 6), str(tmp_path / "b"))
    other = consolidate(Trained(1).save(run, 7), str(tmp_path / "c"))
    assert model_digest(one) == model_digest(same) != model_digest(other)
