"""A checkpoint written beside the training holds what was there when it began, and is told of when it fails."""

import threading
from dataclasses import replace

import pytest
import torch
from torch import nn

from dalle2_train import storage
from dalle2_train.checkpoints import ModelManifest
from dalle2_train.checkpoints.layout import committed_steps
from dalle2_train.checkpoints.load import load_into, newest_whole
from dalle2_train.checkpoints.retention import Keep
from dalle2_train.checkpoints.save import Guard, Snapshot
from dalle2_train.checkpoints.saver import Saver
from dalle2_train.checkpoints.state import state_of
from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.parallel.shard import ParallelConfig

MANIFEST = ModelManifest(kind="prior", config={})


@pytest.fixture(autouse=True)
def _group():
    with one_rank_strategy(ParallelConfig()):
        yield


def snapshot(network: nn.Module, step: int) -> Snapshot:
    return Snapshot(
        state_of(network, {}, torch.optim.AdamW(network.parameters())), replace(MANIFEST, step=step)
    )


def test_it_holds_what_was_there_when_it_began(tmp_path):
    network, may_go_on = nn.Linear(3, 2), threading.Event()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    saver = Saver(str(tmp_path), Keep(2), Guard(flush=may_go_on.wait))
    saver.begin(snapshot(network, 1))
    # The training goes on while the checkpoint waits to be published.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert committed_steps(str(tmp_path)) == []
    may_go_on.set()
    saver.wait()
    folder, _ = newest_whole(str(tmp_path))
    loaded = {"model": {name: torch.zeros_like(p) for name, p in before.items()}}
    load_into(folder, loaded)
    assert all(torch.equal(loaded["model"][name], before[name]) for name in before)


def test_one_is_written_at_a_time(tmp_path):
    network, order = nn.Linear(3, 2), []
    saver = Saver(str(tmp_path), Keep(5), Guard(flush=lambda: order.append("written")))
    for step in (1, 2, 3):
        saver.begin(snapshot(network, step))
        order.append("begun")
    saver.wait()
    assert order.index("written") < 2 and committed_steps(str(tmp_path)) == [1, 2, 3]


def test_a_failure_is_there_to_see_and_raised_once(tmp_path, monkeypatch):
    saver = Saver(str(tmp_path), Keep(2))
    monkeypatch.setattr(storage, "publish_bytes", _full)
    saver.begin(snapshot(nn.Linear(3, 2), 1))
    saver.settle()
    assert "no space left" in str(saver.failure)
    with pytest.raises(OSError, match="no space left"):
        saver.wait()
    monkeypatch.undo()
    saver.begin(snapshot(nn.Linear(3, 2), 2))
    saver.wait()
    assert committed_steps(str(tmp_path)) == [2]


def _full(*_):
    raise OSError("no space left")
