"""Sharpness-aware minimisation inside a training: against a plain loop, over ranks, after a restart."""

import shutil
from pathlib import Path

import pytest
import torch
from processes import run_ranks
from safetensors.torch import load_file
from toy_training import OPTIMIZER, ToyBatch, ToyNetwork, losses, train_alone

from dalle2_train import seeding
from dalle2_train.checkpoints.layout import checkpoint_uri
from dalle2_train.errors import InputError
from dalle2_train.training.config import OptimizerConfig
from dalle2_train.training.optimizer import build_optimizer, learning_rate

RHO = 0.5


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    train_alone(str(run), dtype=torch.float64, nan_steps=(5,), sam_rho=RHO)
    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def test_a_training_equals_a_plain_loop(tmp_path: Path):
    """Two gradients a step, of the same noise and the same dropout; clipping, decay and averaging after both."""
    run, num_steps = tmp_path / "run", 5
    options = {
        "sam_rho": RHO,
        "dropout": 0.4,
        "num_steps": num_steps,
        "gradient_clip_norm": 0.3,
        "ema_decay": 0.0,
    }
    train_alone(str(run), dtype=torch.float64, **options)

    torch.manual_seed(0)
    network = ToyNetwork(0.4).double()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(network, OPTIMIZER)
    found = []
    for step in range(num_steps):
        index = step * 8 + torch.arange(8)
        batch = ToyBatch(index, seeding.normal((5,), 0, "x", 0, index, torch.float64))

        def loss(batch: ToyBatch = batch, step: int = step) -> torch.Tensor:
            torch.manual_seed(seeding.key(0, "dropout", step, 0))
            eps = seeding.normal((3,), 0, "noise", step, batch.index, torch.float64)
            return (network(batch.x) - torch.sin(batch.x[:, :3]) - 0.1 * eps).square().mean()

        first = loss()
        gradients = torch.autograd.grad(first, trained)
        length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        before = [parameter.detach().clone() for parameter in trained]
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter += RHO * gradient / length
        loss().backward()
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)
        torch.nn.utils.clip_grad_norm_(trained, 0.3)
        optimizer.param_groups[0]["lr"] = learning_rate(OPTIMIZER, step, num_steps)
        optimizer.param_groups[1]["lr"] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad()
        found.append(first.item())

    assert losses(str(run)) == pytest.approx(found, rel=1e-9)
    for name, value in weights_of(run).items():
        torch.testing.assert_close(value, network.state_dict()[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [{"micro_batch_size": 3}, {"shard": 1}], ids=["sharded", "replicas"])
def test_two_ranks_equal_one(one: Path, tmp_path: Path, options: dict):
    run = tmp_path / "run"
    results = run_ranks(run, 2, dtype="float64", nan_steps=(5,), sam_rho=RHO, **options)
    assert results == [(0, ""), (0, "")]
    for name, value in weights_of(one).items():
        torch.testing.assert_close(weights_of(run)[name], value, rtol=0, atol=1e-9)


def test_a_step_that_is_no_number_is_left_out(one: Path):
    assert [step for step, loss in enumerate(losses(str(one))) if loss is None] == [5]
    assert all(value.isfinite().all() for value in weights_of(one).values())


def test_a_restart_goes_on_with_the_very_same_bits(one: Path, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(one, run)
    shutil.rmtree(run / "model")
    shutil.rmtree(checkpoint_uri(str(run), 12))
    result = train_alone(str(run), dtype=torch.float64, nan_steps=(5,), sam_rho=RHO)
    assert result.resumed_from == 8 and losses(str(run)) == losses(str(one))
    assert all(torch.equal(weights_of(run)[name], value) for name, value in weights_of(one).items())


def test_a_negative_radius_is_named():
    with pytest.raises(InputError, match="sam_rho"):
        OptimizerConfig(sam_rho=-0.1)
