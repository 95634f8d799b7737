"""The gradient uphill, on a single rank; that ranks agree is tests/training/test_sam.py."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from dalle2_train.launch.local import one_rank_strategy
from dalle2_train.parallel.shard import ParallelConfig, build_mesh
from dalle2_train.parallel.sharpness import sharpness_aware_gradient

RHO = 0.3


@pytest.fixture(scope="module")
def mesh():
    config = ParallelConfig()
    with one_rank_strategy(config):
        yield build_mesh(config, "cpu", [1])


@pytest.fixture
def tower() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1, dtype=torch.float64)


def test_it_is_the_gradient_of_the_worst_point_nearby(mesh: DeviceMesh, tower: nn.Linear):
    random = np.random.default_rng(0)
    x, y = random.standard_normal((6, 4)), random.standard_normal(6)

    def by_hand(weight: np.ndarray, bias: float) -> tuple[float, np.ndarray, float]:
        """Loss and gradient of the mean fourth power of the error."""
        error = x @ weight + bias - y
        return (error**4).mean(), 4 * x.T @ error**3 / 6, 4 * (error**3).mean()

    def backward() -> Tensor:
        loss = (tower(torch.from_numpy(x))[:, 0] - torch.from_numpy(y)).pow(4).mean()
        loss.backward()
        return loss.detach()

    weight, bias = tower.weight.detach().numpy()[0].copy(), tower.bias.item()
    loss, of_weight, of_bias = by_hand(weight, bias)
    length = np.sqrt((of_weight**2).sum() + of_bias**2)
    _, of_weight, of_bias = by_hand(weight + RHO * of_weight / length, bias + RHO * of_bias / length)

    found = sharpness_aware_gradient(tower, list(tower.parameters()), mesh, RHO, backward(), backward)
    assert found.item() == pytest.approx(loss, rel=1e-12)
    assert tower.weight.grad is not None and tower.bias.grad is not None
    np.testing.assert_allclose(tower.weight.grad[0], of_weight, rtol=1e-12)
    np.testing.assert_allclose(tower.bias.grad[0], of_bias, rtol=1e-12)
    assert np.array_equal(tower.weight.detach()[0], weight) and tower.bias.item() == bias


def test_a_gradient_that_is_zero_or_no_number_is_taken_once(mesh: DeviceMesh, tower: nn.Linear):
    before = tower.weight.clone()
    for factor in (0.0, float("nan"), float("inf")):
        calls = []

        def backward(factor: float = factor, calls: list[float] = calls) -> Tensor:
            calls.append(factor)
            (tower(torch.ones(1, 4, dtype=torch.float64)).sum() * factor).backward()
            return torch.zeros(())

        tower.zero_grad()
        sharpness_aware_gradient(tower, list(tower.parameters()), mesh, RHO, backward(), backward)
        assert len(calls) == 1 and torch.equal(tower.weight, before)
        assert tower.weight.grad is not None and tower.weight.grad.isfinite().all() == (factor == 0)


def test_a_loss_that_is_no_number_uphill_is_told(mesh: DeviceMesh, tower: nn.Linear):
    losses = iter([1.0, float("inf")])

    def backward() -> Tensor:
        tower(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
        return torch.tensor(next(losses))

    assert sharpness_aware_gradient(tower, list(tower.parameters()), mesh, RHO, backward(), backward).isnan()


def test_weights_come_back_even_after_an_error(mesh: DeviceMesh, tower: nn.Linear):
    before, calls = tower.weight.clone(), []

    def backward() -> Tensor:
        calls.append(tower.weight.clone())
        if len(calls) == 2:
            raise KeyError
        tower(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
        return torch.zeros(())

    with pytest.raises(KeyError):
        sharpness_aware_gradient(tower, list(tower.parameters()), mesh, RHO, backward(), backward)
    assert not torch.equal(calls[1], before) and torch.equal(tower.weight, before)


def test_what_is_frozen_stays(mesh: DeviceMesh, tower: nn.Linear):
    tower.bias.requires_grad_(False)
    seen = []

    def backward() -> Tensor:
        seen.append(tower.bias.clone())
        tower(torch.ones(1, 4, dtype=torch.float64)).sum().backward()
        return torch.zeros(())

    sharpness_aware_gradient(tower, [tower.weight], mesh, RHO, backward(), backward)
    assert torch.equal(*seen)
