"""The autoregressive prior's update: what the network is shown, what the loss is, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from families import CONTEXT_LENGTH, EMBED_DIM, SETTINGS, null_text, random, random_text, rows, spy, train

from dalle2_train.data.stream.batches import PriorBatch
from dalle2_train.errors import InputError
from dalle2_train.networks.ar_prior import ArPrior, ArPriorConfig
from dalle2_train.training.ar_prior import (
    ArPriorModelConfig,
    ArPriorModule,
    left_out,
    use_components,
    use_dots,
)
from dalle2_train.training.draws import keep
from dalle2_train.training.gradients import accumulate_gradient

CONFIG = ArPriorModelConfig(
    ArPriorConfig(
        EMBED_DIM,
        CONTEXT_LENGTH,
        num_dims=6,
        num_buckets=16,
        num_dot_buckets=4,
        depth=2,
        num_heads=2,
        head_dim=16,
    )
)
STD = torch.linspace(3.0, 0.5, EMBED_DIM, dtype=torch.float64)


def build(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    network = ArPrior(config.network)
    use_components(network, [0.5] * EMBED_DIM, STD.square().diag())
    return ArPriorModule(network, config, null_text(), *SETTINGS)


def batch_of(num_samples):
    image_embed = 0.5 + STD.float() * random(num_samples, EMBED_DIM)
    return PriorBatch(torch.arange(num_samples) + 24, image_embed, *random_text(num_samples))


def test_the_network_sees_codes_similarity_and_text_or_neither():
    module, batch = build(condition_dropout=0.5), batch_of(8)
    seen = spy(module.network)
    module.compute_loss(batch, step=3)
    codes, dot_bucket, *text = seen[0]
    kept = keep(7, "text", 3, batch.index, 0.5)
    assert 0 < kept.sum() < 8
    # With a diagonal covariance the components are the coordinates themselves.
    components = (batch.image_embed - 0.5) / STD.float()
    nearest = (components[:, :5, None] - module.network.embed_codes.levels).abs().argmin(dim=-1)
    assert torch.equal(codes, nearest)
    own = module.network.dot_bucket(batch.image_embed, batch.text_embed)
    assert torch.equal(dot_bucket[kept], own[kept])
    assert (dot_bucket[~kept] == module.network.unknown_dot).all()
    for given, null, shown in zip(batch[2:], null_text(), text, strict=True):
        assert torch.equal(shown[kept], given[kept])
        assert torch.equal(shown[~kept], null.expand_as(given)[~kept])


def test_the_loss_is_the_codes_negative_log_likelihood():
    module, batch = build(condition_dropout=0.0), batch_of(8)
    first = module.compute_loss(batch, 0)
    assert first.loss.item() == pytest.approx(np.log(16))
    assert first.metrics["bits_per_code"].item() == pytest.approx(4.0)
    torch.nn.init.normal_(module.network.proj_to_buckets.weight)
    outputs = []
    module.network.register_forward_hook(lambda *event: outputs.append(event[2]))
    found = module.compute_loss(batch, 0)
    logits = outputs[0].detach().double().numpy()
    codes = module.network.embed_codes.encode(batch.image_embed).numpy()
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    likelihood = np.log(np.take_along_axis(odds, codes[..., None], -1))
    assert found.loss.item() == pytest.approx(-likelihood.mean(), rel=1e-5)
    # The metrics, with the components read off the coordinates.
    levels, std = module.network.embed_codes.levels.double().numpy(), STD.numpy()
    expected, returned = np.full((2, 8, EMBED_DIM), 0.5)
    expected[:, :6] += odds @ levels * std[:6]
    returned[:, :6] += levels[codes] * std[:6]
    truth = batch.image_embed.double().numpy()
    cosines = (expected * truth).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(truth, axis=1)
    assert found.metrics["cosine"].item() == pytest.approx(cosines.mean(), rel=1e-5)
    error = ((truth - returned) ** 2).sum(1).mean() / STD.square().sum().item()
    assert found.metrics["code_error"].item() == pytest.approx(error, rel=1e-4)


def test_loss_is_the_mean_of_its_parts():
    module, batch = build(condition_dropout=0.5), batch_of(8)
    torch.nn.init.normal_(module.network.proj_to_buckets.weight)
    whole = module.compute_loss(batch, 5).loss
    halves = (torch.arange(0, 8, 2), torch.arange(1, 8, 2))
    torch.testing.assert_close(
        whole, sum(module.compute_loss(rows(batch, part), 5).loss for part in halves) / 2
    )


def test_the_metrics_of_micro_batches_are_those_of_the_whole():
    module, batch = build(condition_dropout=0.5), batch_of(8)
    torch.nn.init.normal_(module.network.proj_to_buckets.weight)
    whole, parts = (
        accumulate_gradient(module.network, lambda part: module.compute_loss(part, 5), batch, size).metrics
        for size in (None, 3)
    )
    assert set(whole) == {"bits_per_code", "cosine", "code_error"}
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)


def test_what_is_left_out_is_of_the_embeddings_that_are_given():
    network = build().network
    turned = torch.linalg.qr(random(EMBED_DIM, EMBED_DIM, seed=9).double())[0]
    covariance = turned @ STD.square().diag() @ turned.T
    # The kept directions are the first six axes.
    kept = covariance.diagonal()[:6].sum() / STD.square().sum()
    assert left_out(network, covariance) == pytest.approx(1 - kept.item(), abs=1e-6)
    assert left_out(network, STD.square().diag()) == pytest.approx(
        network.embed_codes.left_out.item(), abs=1e-6
    )


def test_it_learns_a_tiny_batch_by_its_text():
    losses = train(build(condition_dropout=0.0), batch_of(8), 120, 3e-3)
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]


def test_it_learns_a_known_distribution_and_no_more():
    """Of two sign patterns at odds of 3 to 1 the first code takes 0.811 bits, and the second none."""
    module = build(
        condition_dropout=0.0, network=dataclasses.replace(CONFIG.network, num_dims=2, num_buckets=2)
    )
    signs = torch.tensor([[1.0, 1.0]] * 6 + [[-1.0, -1.0]] * 2)
    image_embed = 0.5 + torch.cat([signs, torch.zeros(8, EMBED_DIM - 2)], dim=1)
    text = [part.expand(8, *part.shape[1:]) for part in null_text()]
    module.network.dot_edges.fill_(2.0)
    batch = PriorBatch(torch.arange(8), image_embed, *text)
    losses = train(module, batch, 150, 1e-2)
    bits = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert losses[-1] / np.log(2) * 2 == pytest.approx(bits, abs=0.01)


def test_similarities_are_parted_into_equal_shares():
    module, batch = build(), batch_of(64)
    use_dots(module, iter([rows(batch, part) for part in torch.arange(64).split(16)]), 48)
    first = rows(batch, torch.arange(48))
    cosines = torch.cosine_similarity(first.image_embed, first.text_embed).numpy()
    np.testing.assert_allclose(module.network.dot_edges, np.quantile(cosines, [0.25, 0.5, 0.75]), rtol=1e-5)
    assert torch.bincount(module.network.dot_bucket(first.image_embed, first.text_embed)).tolist() == [12] * 4


def test_unusable_statistics_and_settings_are_named():
    with pytest.raises(InputError, match="3 dimensions"):
        use_components(ArPrior(CONFIG.network), [0.0] * 3, torch.eye(3))
    with pytest.raises(InputError, match="condition_dropout"):
        dataclasses.replace(CONFIG, condition_dropout=1.5)
