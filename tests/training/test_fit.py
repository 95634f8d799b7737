"""A run of one rank: its records, its ends, and going on as if nothing had happened."""

import json
import os
import shutil
import signal
import time
from functools import partial

import pytest
import torch
from PIL import Image
from processes import finish_ranks, start_ranks
from safetensors.torch import load_file
from toy_training import ToyNetwork, losses, train_alone

from dalle2_train import storage
from dalle2_train.checkpoints.attempt import begin_attempt
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps, started_steps, stop_uri
from dalle2_train.errors import InputError, PreemptedError, RefusedError


class Recorded:
    def __init__(self, fails: bool = False) -> None:
        self.values, self.images, self.statuses, self.fails = {}, [], [], fails
        self.documents, self.begun, self.num_flushes = {}, [], 0

    def begin(self, completed_steps):
        self.begun.append(completed_steps)

    def flush(self):
        self.num_flushes += 1

    def metrics(self, step, values):
        if self.fails:
            raise ConnectionError("nobody there")
        self.values[step] = values

    def image(self, name, step, image):
        self.images.append((name, step, image.size))

    def document(self, name, value):
        self.documents[name] = value

    def finish(self, status):
        self.statuses.append(status)

    def abandon(self):
        self.statuses.append("abandoned")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run with dropout."""
    run = str(tmp_path_factory.mktemp("whole") / "run")
    recorder = Recorded()
    result = train_alone(run, dropout=0.3, recorder=recorder)
    return run, result, recorder


def test_a_run_leaves_losses_metrics_progress_and_a_model(whole):
    run, result, recorder = whole
    assert (result.step, result.resumed_from) == (12, 0)
    assert len(losses(run)) == 12 and result.loss == losses(run)[-1]
    assert sorted(recorder.values) == [2, 4, 6, 8, 10, 12]
    assert recorder.values[4]["twice"] == pytest.approx(2 * losses(run)[3])
    assert recorder.statuses == ["finished"] and recorder.begun == [0] and recorder.num_flushes == 3
    progress = storage.read_json(f"{run}/progress.json")
    assert (progress["status"], progress["step"], progress["num_steps"]) == ("finished", 12, 12)
    assert committed_steps(run) == [8, 12]
    weights = load_file(f"{run}/model/model.safetensors")
    ToyNetwork().load_state_dict(weights)
    assert (storage.read_bytes(f"{run}/model/note.txt")) == b"beside the weights"


def test_a_finished_run_returns_at_once(whole):
    run, result, _ = whole
    before = storage.read_bytes(f"{run}/losses.jsonl")
    again = train_alone(run, dropout=0.3)
    assert (again.step, again.resumed_from, again.loss) == (12, 12, result.loss)
    assert storage.read_bytes(f"{run}/losses.jsonl") == before


def test_a_finished_run_goes_on_when_more_steps_are_asked_for(whole, tmp_path):
    run = str(tmp_path / "run")
    shutil.copytree(whole[0], run)
    result = train_alone(run, dropout=0.3, num_steps=14)
    assert (result.step, result.resumed_from, len(losses(run))) == (14, 12, 14)


def test_a_killed_run_goes_on_with_the_very_same_losses(whole, tmp_path):
    run = tmp_path / "run"
    (rank,) = start_ranks(run, 1, dropout=0.3, data={"acts": {7: partial(time.sleep, 300)}})
    # Killed between two checkpoints, with half a line written as a crash may leave it.
    _wait_for(lambda: run.joinpath("losses.jsonl").exists() and len(_lines(run)) >= 6)
    _wait_for(lambda: committed_steps(str(run)) == [4])  # it is written beside the training
    os.kill(rank.pid, signal.SIGKILL)
    finish_ranks(run, [rank])
    assert committed_steps(str(run)) == [4]
    with run.joinpath("losses.jsonl").open("a") as stream:
        stream.write('{"step": 99, "lo')
    result = train_alone(str(run), dropout=0.3)
    assert result.resumed_from == 4
    assert losses(str(run)) == losses(whole[0])
    ours, theirs = (load_file(f"{folder}/model/model.safetensors") for folder in (run, whole[0]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_damaged_checkpoint_is_passed_over_and_said_so(whole, tmp_path, capsys):
    run = str(tmp_path / "run")
    shutil.copytree(whole[0], run)
    shutil.rmtree(f"{run}/model")
    with open(f"{checkpoint_uri(run, 12)}/__0_0.distcp", "r+b") as stream:
        stream.seek(100)
        stream.write(b"\xff")
    result = train_alone(run, dropout=0.3)
    assert result.resumed_from == 8
    assert losses(run) == losses(whole[0])
    assert "step-00000012 is not whole" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_the_same_command_goes_on(whole, tmp_path, number):
    run = str(tmp_path / "run")
    before = signal.getsignal(number)
    with pytest.raises(PreemptedError, match="goes on"):
        train_alone(run, dropout=0.3, data={"acts": {6: partial(_signal, number)}})
    stopped = committed_steps(run)[-1]
    assert 5 <= stopped < 12 and storage.read_json(f"{run}/progress.json")["status"] == "preempted"
    assert signal.getsignal(number) is before
    assert train_alone(run, dropout=0.3).resumed_from == stopped
    assert losses(run) == losses(whole[0])


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    run = str(tmp_path / "run")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train_alone(run, data={"acts": {6: partial(_signal, signal.SIGINT, times=2)}})
    assert signal.getsignal(signal.SIGINT) is before and committed_steps(run) in ([], [4])


def test_a_stop_file_stops_too(tmp_path):
    run = str(tmp_path / "run")
    storage.publish_bytes(stop_uri(run), b"")
    with pytest.raises(PreemptedError):
        train_alone(run)
    assert committed_steps(run) == [1]


def test_a_loss_that_is_no_number_leaves_the_weights_alone(tmp_path):
    run = str(tmp_path / "run")
    train_alone(run, nan_steps=(5, 6))
    lines = _lines(tmp_path / "run")
    assert [line["step"] for line in lines if line["skipped"]] == [6, 7]
    assert lines[5]["loss"] is None and lines[7]["loss"] > 0
    weights = load_file(f"{run}/model/model.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_many_in_a_row_stop_the_run(tmp_path):
    run, recorder = str(tmp_path / "run"), Recorded()
    with pytest.raises(RefusedError, match="3 steps in a row"):
        train_alone(run, nan_steps=tuple(range(5, 12)), max_nonfinite_steps=3, recorder=recorder)
    assert recorder.statuses == ["refused"]
    assert storage.read_json(f"{run}/progress.json")["status"] == "refused"


def test_a_recorder_that_fails_stops_nothing_and_is_reported_once(tmp_path, capsys):
    assert train_alone(str(tmp_path / "run"), recorder=Recorded(fails=True)).step == 12
    assert capsys.readouterr().err.count("nobody there") == 1


def test_pictures_are_drawn_with_the_averages_and_change_no_loss(tmp_path, whole):
    seen, recorder = [], Recorded()

    def sampler(network):
        assert not network.training
        seen.append(network.exit.weight.detach().clone())
        return Image.new("RGB", (4, 4))

    run = str(tmp_path / "run")
    train_alone(run, dropout=0.3, sampler=sampler, sample_every_steps=6, recorder=recorder)
    assert recorder.images == [("samples", 6, (4, 4)), ("samples", 12, (4, 4))]
    assert storage.exists(f"{run}/samples/step-00000012.png")
    assert losses(run) == losses(whole[0])
    assert torch.equal(seen[-1], load_file(f"{run}/model/model.safetensors")["exit.weight"])


def test_micro_batches_give_the_same_losses(tmp_path):
    train_alone(str(tmp_path / "whole"), dtype=torch.float64)
    train_alone(str(tmp_path / "parts"), dtype=torch.float64, micro_batch_size=3)
    assert losses(str(tmp_path / "parts")) == pytest.approx(losses(str(tmp_path / "whole")), rel=1e-12)


def test_a_name_belongs_to_one_model(whole, tmp_path):
    run = str(tmp_path / "run")
    shutil.copytree(whole[0], run)
    with pytest.raises(InputError, match="another --name"):
        train_alone(run, num_steps=14, config={"toy": 2})


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train_alone(str(tmp_path / "file" / "run"))


def _lines(run):
    return [json.loads(line) for line in run.joinpath("losses.jsonl").read_text().split("\n")[:-1]]


def _wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def _signal(number, times=1):
    for _ in range(times):
        os.kill(os.getpid(), number)


def test_an_old_checkpoint_that_was_half_removed_at_the_last_step_goes_at_the_next_start(tmp_path):
    """There is no save to come that would."""
    run = str(tmp_path / "run")
    train_alone(run, num_steps=4, checkpoint_every_steps=2)
    shutil.rmtree(tmp_path / "run" / "model")  # killed before it was released
    storage.publish_bytes(storage.join(checkpoint_uri(run, 1), "__0_0.distcp"), b"half")
    assert train_alone(run, num_steps=4, checkpoint_every_steps=2).step == 4
    assert started_steps(run) == committed_steps(run) == [2, 4]


def test_a_start_that_another_one_followed_commits_and_records_nothing_more(tmp_path):
    run, recorder = str(tmp_path / "run"), Recorded()

    def another_begins() -> None:
        _wait_for(lambda: committed_steps(run) == [4])  # it is written beside the training
        begin_attempt(run)

    with pytest.raises(InputError, match="started anew"):
        train_alone(run, recorder=recorder, data={"acts": {6: another_begins}})
    assert committed_steps(run) == [4]
    # What it would say of the end is not its to say any more.
    assert (
        recorder.statuses == ["abandoned"]
        and storage.read_json(f"{run}/progress.json")["status"] == "running"
    )
    assert train_alone(run).resumed_from == 4


def test_what_a_process_could_not_say_any_more_of_a_finished_run_is_said_by_the_next(tmp_path):
    run, recorder = str(tmp_path / "run"), Recorded()
    done = train_alone(run)
    told = storage.read_json(f"{run}/progress.json")
    storage.publish_json(f"{run}/progress.json", told | {"status": "running"})
    assert train_alone(run, recorder=recorder).model == done.model
    found = storage.read_json(f"{run}/progress.json")
    assert (found["status"], found["step"], found["loss"]) == ("finished", 12, told["loss"])
    assert recorder.statuses == ["finished"]
