"""The prior's update: what the network is shown, what the loss is, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from families import CONTEXT_LENGTH, EMBED_DIM, SETTINGS, null_text, random, random_text, rows, spy, train

from dalle2_train.data.stream.batches import PriorBatch
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.errors import InputError
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.whitening import FLOOR
from dalle2_train.training.draws import diffusion_draws, keep, timesteps
from dalle2_train.training.optimizer import build_optimizer
from dalle2_train.training.prior import (
    PriorModelConfig,
    PriorModule,
    statistics,
    use_statistics,
    whiten_error,
)

CONFIG = PriorModelConfig(
    network=PriorConfig(
        embed_dim=EMBED_DIM, num_text_tokens=CONTEXT_LENGTH, depth=2, num_heads=2, head_dim=16
    )
)


def build(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    network = Prior(config.network)
    use_statistics(network, [0.5] * EMBED_DIM, [2.0] * EMBED_DIM)
    return PriorModule(network, config, null_text(), *SETTINGS)


def batch_of(num_samples):
    image_embed = 0.5 + 2.0 * random(num_samples, EMBED_DIM)
    return PriorBatch(torch.arange(num_samples) + 24, image_embed, *random_text(num_samples))


def test_the_network_sees_noised_normalised_embeddings_and_text():
    module, batch = build(condition_dropout=0.5), batch_of(8)
    seen = spy(module.network)
    module.compute_loss(batch, step=3)
    x_t, t, *text = seen[0]
    draws = diffusion_draws(7, 3, batch.index, 1000, (EMBED_DIM,))
    kept = keep(7, "text", 3, batch.index, 0.5)
    assert 0 < kept.sum() < 8
    alpha_bar = module.schedule.alphas_cumprod[t].float()[:, None]
    expected = alpha_bar.sqrt() * (batch.image_embed - 0.5) / 2.0 + (1 - alpha_bar).sqrt() * draws.eps
    torch.testing.assert_close(x_t, expected)
    assert torch.equal(t, draws.t)
    for given, null, shown in zip(batch[2:], null_text(), text, strict=True):
        assert torch.equal(shown[kept], given[kept])
        assert torch.equal(shown[~kept], null.expand_as(given)[~kept])


def test_the_objectives_shift_is_that_of_the_timesteps():
    module, batch = build(objective=ObjectiveConfig("sample", timestep_shift=8.0)), batch_of(8)
    seen = spy(module.network)
    module.compute_loss(batch, step=3)
    assert torch.equal(seen[0][1], timesteps(7, 3, batch.index, 1000, 8.0))


def test_first_loss_is_the_embeddings_variance():
    module, batch = build(), batch_of(8)
    loss = module.compute_loss(batch, 0).loss
    torch.testing.assert_close(loss, ((batch.image_embed - 0.5) / 2.0).square().mean())


def test_whitened_errors_are_those_of_numpy():
    module, batch = build(whiten_error=True), batch_of(8)
    torch.nn.init.normal_(module.network.proj_to_clip_embeddings.weight)
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(EMBED_DIM, EMBED_DIM))
    covariance = mixed @ mixed.T / EMBED_DIM
    std = np.sqrt(np.diagonal(covariance))
    whiten_error(module, torch.from_numpy(covariance))
    # As of a checkpoint that is gone on from, whose statistics need not be the set's.
    use_statistics(module.network, [0.5] * EMBED_DIM, std.tolist())
    shown, returned = [], []

    def listen(_network, args, output):
        shown.append(args)
        returned.append(output)

    module.network.register_forward_hook(listen)
    loss = module.compute_loss(batch, 3).loss

    correlation = covariance / np.outer(std, std)
    variances, directions = np.linalg.eigh(correlation)
    error = returned[0].detach().double().numpy() - (batch.image_embed.double().numpy() - 0.5) / std
    along = error @ directions / np.sqrt(variances + FLOOR * variances.mean())
    assert loss.item() == pytest.approx((along**2).mean(), rel=1e-5)
    # The noise is that of the plain objective: only the error is measured otherwise.
    module.whitens = False
    module.compute_loss(batch, 3)
    assert torch.equal(shown[0][0], shown[1][0])


def test_a_whitened_error_learns_the_same_from_a_batch():
    module, batch = build(condition_dropout=0.0, whiten_error=True), batch_of(8)
    whiten_error(module, torch.linspace(0.5, 8.0, EMBED_DIM, dtype=torch.float64).diag())
    losses = train(module, batch, 150, 3e-3)
    assert sum(losses[-10:]) / 10 < 0.1 * losses[0]


def test_loss_is_the_mean_of_its_parts():
    module, batch = build(condition_dropout=0.5), batch_of(8)
    torch.nn.init.normal_(module.network.proj_to_clip_embeddings.weight)
    whole = module.compute_loss(batch, 5).loss
    parts = [
        module.compute_loss(rows(batch, part), 5).loss
        for part in (torch.arange(0, 8, 2), torch.arange(1, 8, 2))
    ]
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_it_learns_a_tiny_batch():
    losses = train(build(condition_dropout=0.0), batch_of(8), 150, 3e-3)
    assert sum(losses[-10:]) / 10 < 0.1 * losses[0]


def test_statistics_normalise_and_are_not_trained():
    network = Prior(CONFIG.network)
    embeds = 3.0 + random(500, EMBED_DIM) * torch.linspace(0.1, 4, EMBED_DIM)
    use_statistics(network, embeds.mean(dim=0).tolist(), embeds.std(dim=0).tolist())
    normalised = network.normalise(embeds)
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(EMBED_DIM), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(dim=0), torch.ones(EMBED_DIM), atol=1e-4, rtol=0)
    torch.testing.assert_close(network.denormalise(normalised), embeds)
    trained = {id(p) for group in build_optimizer(network, SETTINGS[1]).param_groups for p in group["params"]}
    assert not {id(network.clip_mean), id(network.clip_std)} & trained
    assert {"clip_mean", "clip_std"} <= set(network.state_dict())


SMALL_MEAN, SMALL_STD = [0.15] * EMBED_DIM, [0.2] * EMBED_DIM  # coordinates of 0.25


def test_a_scale_multiplies_embeddings_and_without_one_the_sets_own_statistics_normalise():
    assert statistics(CONFIG, SMALL_MEAN, SMALL_STD) == (SMALL_MEAN, SMALL_STD)
    network = Prior(CONFIG.network)
    scaled = dataclasses.replace(CONFIG, embedding_scale=3.5)
    use_statistics(network, *statistics(scaled, SMALL_MEAN, SMALL_STD))
    embeds = 0.15 + 0.2 * random(9, EMBED_DIM)
    torch.testing.assert_close(network.normalise(embeds), 3.5 * embeds)
    torch.testing.assert_close(network.denormalise(3.5 * embeds), embeds)


@pytest.mark.parametrize(("scale", "is_good"), [(0.99, False), (1.01, True), (15.9, True), (16.1, False)])
def test_a_scale_that_leaves_coordinates_four_times_from_one_is_refused(scale, is_good):
    scaled = dataclasses.replace(CONFIG, embedding_scale=scale)
    if is_good:
        assert statistics(scaled, SMALL_MEAN, SMALL_STD)[1] == pytest.approx([1 / scale] * EMBED_DIM)
    else:
        with pytest.raises(
            InputError, match=r"coordinates of these embeddings are 0\.25 large.*set it to 4, or"
        ):
            statistics(scaled, SMALL_MEAN, SMALL_STD)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.0] * 3, [1.0] * 3), ([0.0] * EMBED_DIM, [1.0] * (EMBED_DIM - 1) + [0.0])]
)
def test_unusable_statistics_are_named(mean, std):
    with pytest.raises(InputError, match="dimension"):
        use_statistics(Prior(CONFIG.network), mean, std)


@pytest.mark.parametrize(
    "changes",
    [
        {"condition_dropout": 1.5},
        {"objective": ObjectiveConfig("sample", learned_variance=True)},
        {"objective": ObjectiveConfig("epsilon"), "whiten_error": True},
        {"embedding_scale": 0.0},
    ],
)
def test_impossible_settings_are_named(changes):
    with pytest.raises(InputError, match=r"condition_dropout|learned_variance|whiten_error|embedding_scale"):
        dataclasses.replace(CONFIG, **changes)
