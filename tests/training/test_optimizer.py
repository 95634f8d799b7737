"""The learning rate is a function of the step; what decays is what has more than one dimension."""

import math

import pytest
import torch

from dalle2_train.errors import InputError
from dalle2_train.parallel.muon import Muon
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.optimizer import build_optimizer, learning_rate


def test_the_rate_rises_then_falls_as_a_cosine():
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=4, schedule="cosine", final_fraction=0.1)
    rates = [learning_rate(config, step, 104) for step in range(105)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[54] == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rates[104] == pytest.approx(0.2)
    theirs = [2.0 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * i / 100))) for i in range(101)]
    assert rates[4:] == pytest.approx(theirs)


def test_the_rate_can_stay():
    config = OptimizerConfig(learning_rate=2.0)
    assert {learning_rate(config, step, 10) for step in range(10)} == {2.0}


def test_biases_and_gains_do_not_decay():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.GroupNorm(1, 2))
    optimizer = build_optimizer(network, OptimizerConfig(weight_decay=0.5))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in network.parameters()] == [0.5, 0.0, 0.0, 0.0]


def test_the_config_names_the_optimizer():
    network = torch.nn.Linear(3, 4)
    assert type(build_optimizer(network, OptimizerConfig())) is torch.optim.AdamW
    assert type(build_optimizer(network, OptimizerConfig(name="muon"))) is Muon


def test_settings_that_cannot_be_are_named():
    with pytest.raises(InputError, match="num_steps is 0"):
        TrainingConfig(num_steps=0, global_batch_size=1)
    with pytest.raises(InputError, match="ema_decay"):
        TrainingConfig(num_steps=1, global_batch_size=1, ema_decay=1.0)
