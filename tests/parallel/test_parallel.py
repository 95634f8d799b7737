"""Pieces of parallel training on a single rank; that ranks agree is tests/training/test_ranks.py."""

import pytest
import torch
from torch import nn

from dalle2_train.errors import InputError
from dalle2_train.parallel.clipping import clip_coefficient, local_squared_norm, scale_gradients
from dalle2_train.parallel.ema import Ema, warmed_up_decay
from dalle2_train.parallel.precision import mixed_precision_dtype
from dalle2_train.parallel.shard import ParallelConfig, mesh_sizes


@pytest.mark.parametrize(
    ("shard", "machines", "sizes"),
    [
        ("auto", [1], (1, 1)),
        ("auto", [8], (1, 8)),
        ("auto", [4, 4], (2, 4)),
        # Filled unevenly: a copy of the weights is never spread over two machines, and all ranks reckon alike.
        ("auto", [2, 1, 1], (4, 1)),
        ("auto", [8, 2], (5, 2)),
        ("auto", [6, 4], (5, 2)),
        (1, [4], (4, 1)),
        (2, [4], (2, 2)),
    ],
)
def test_one_mesh_covers_them_all(shard, machines, sizes):
    local_world_sizes = [size for size in machines for _ in range(size)]
    assert mesh_sizes(ParallelConfig(shard), local_world_sizes) == sizes


def test_a_shard_size_that_does_not_divide_is_named():
    with pytest.raises(InputError, match=r"parallel\.shard is 3"):
        mesh_sizes(ParallelConfig(3), [4] * 4)


@pytest.mark.parametrize("max_norm", [0.1, 1e6, None])
def test_clipping_equals_torch(max_norm):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 4), nn.Linear(3, 4)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        a.grad = torch.randn_like(a)
        b.grad = a.grad.clone()
    parameters = list(ours.parameters())
    norm = local_squared_norm(parameters).sqrt().item()
    scale_gradients(parameters, clip_coefficient(norm, max_norm))
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm or float("inf"))
    assert norm == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_the_average_equals_torchs_swa():
    torch.manual_seed(0)
    network = nn.Linear(3, 4)
    network.bias.requires_grad_(False)
    theirs = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    ema = Ema(network)
    theirs.update_parameters(network)
    for _ in range(5):
        with torch.no_grad():
            network.weight.add_(torch.randn_like(network.weight))
        ema.update(0.9)
        theirs.update_parameters(network)
    assert set(ema.averages) == {"weight"}
    torch.testing.assert_close(ema.averages["weight"], theirs.module.weight.detach())


def test_swapping_is_undone_even_after_an_error():
    network = nn.Linear(2, 2)
    ema = Ema(network)
    average = ema.averages["weight"].clone()
    with torch.no_grad():
        network.weight.add_(1.0)
    trained = network.weight.detach().clone()

    def fail() -> None:
        with ema.swap():
            assert torch.equal(network.weight, average)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(network.weight, trained) and torch.equal(ema.averages["weight"], average)


def test_a_young_average_follows_quickly():
    assert warmed_up_decay(0.999, 0) == 0.1 and warmed_up_decay(0.999, 10**6) == 0.999
    assert warmed_up_decay(0.999, 89) == pytest.approx(90 / 99)  # the 90th update


def test_slow_bf16_is_warned_of_and_never_chosen(monkeypatch):
    monkeypatch.setattr("dalle2_train.parallel.precision.has_fast_bf16", lambda device: False)
    assert mixed_precision_dtype("auto", "cpu") is None
    with pytest.warns(UserWarning, match="only emulates"):
        assert mixed_precision_dtype("bf16", "cpu") is torch.bfloat16
    monkeypatch.setattr("dalle2_train.parallel.precision.has_fast_bf16", lambda device: True)
    assert mixed_precision_dtype("auto", "cpu") is torch.bfloat16
    assert mixed_precision_dtype("fp32", "cpu") is None
