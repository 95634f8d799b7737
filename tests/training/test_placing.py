"""Where weights go: those that are shared are never on the device as a whole."""

from pathlib import Path

import pytest
import torch
from toy_training import ToyNetwork, losses, train_alone, train_toy

from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training import placing


def _refuse(self: ToyNetwork, device: torch.device) -> ToyNetwork:
    raise MemoryError(f"all of it does not fit on {device}")


def test_a_network_in_one_piece_is_moved_as_a_whole_and_a_shared_one_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train_alone(str(tmp_path / "alone"))
    monkeypatch.setattr(ToyNetwork, "to", _refuse)
    with pytest.raises(MemoryError), one_rank_strategy(ParallelConfig()) as strategy:
        train_toy(str(tmp_path / "piece"), strategy)
    with one_rank_strategy(ParallelConfig(cpu_offload=True)) as strategy:
        train_toy(str(tmp_path / "shared"), strategy)
    assert losses(str(tmp_path / "shared")) == losses(str(tmp_path / "alone"))


def test_what_is_not_shared_is_moved():
    network = ToyNetwork()
    placing._move_what_stays_whole(network, torch.device("meta"))
    moved = {name for name, tensor in network.state_dict(keep_vars=True).items() if tensor.is_meta}
    assert moved == {"scale", "shift"}
    assert isinstance(network.scale, torch.nn.Parameter) and not network.scale.requires_grad
