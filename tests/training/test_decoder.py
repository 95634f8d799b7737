"""The decoder's update: what the network is shown, what the loss is, and that it learns."""

import dataclasses

import pytest
import torch
from families import EMBED_DIM, SETTINGS, null_text, random, random_pictures, random_text, rows, spy, train
from safetensors.torch import load_file
from scipy import stats

from dalle2_train.data.stream.batches import DecoderBatch
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.errors import InputError
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.training.decoder import (
    DecoderModelConfig,
    DecoderModule,
    amplify_image_embed,
    whiten_image_embed,
)
from dalle2_train.training.draws import diffusion_draws

SIZE = 8
CONFIG = DecoderModelConfig(
    network=DecoderConfig(
        image_size=SIZE,
        channels=(32, 32),
        num_resnets=1,
        attention=(False, True),
        head_dim=16,
        embed_dim=EMBED_DIM,
    )
)
SIMPLE = ObjectiveConfig()


def build(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, **changes)
    return DecoderModule(Decoder(config.network), config, null_text(), *SETTINGS)


def batch_of(num_samples):
    return DecoderBatch(
        torch.arange(num_samples) + 16,
        random_pictures(num_samples, SIZE),
        random(num_samples, EMBED_DIM),
        *random_text(num_samples),
    )


def wake(module):
    """Output layers start at zero; let conditions reach the output."""
    for parameter in module.network.parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.05)


def test_the_network_sees_unmirrored_noised_pictures():
    module, batch = build(), batch_of(4)
    seen = spy(module.network)
    module.compute_loss(batch, step=2)
    x_t, t, image_embed, *_ = seen[0]
    draws = diffusion_draws(7, 2, batch.index, 1000, (3, SIZE, SIZE))
    alpha_bar = module.schedule.alphas_cumprod[t].float()[:, None, None, None]
    expected = alpha_bar.sqrt() * (batch.image.float() / 127.5 - 1) + (1 - alpha_bar).sqrt() * draws.eps
    torch.testing.assert_close(x_t, expected)
    assert torch.equal(image_embed, batch.image_embed)


def test_conditions_are_dropped_independently_at_their_rates():
    module, batch = build(text_dropout=0.3, image_embed_dropout=0.1), batch_of(4)
    shown = []
    module.network.forward = lambda *args: shown.append(args) or torch.zeros(len(args[0]), 6, SIZE, SIZE)
    num_steps, indices = 50, torch.arange(40)
    wide = rows(batch, indices % 4)._replace(index=indices)
    for step in range(num_steps):
        module.compute_loss(wide, step)
    no_text = torch.cat(
        [(encodings == null_text().text_encodings).all(dim=(1, 2)) for *_, encodings, _, _ in shown]
    )
    no_image = ~torch.cat([args[-1] for args in shown])
    for dropped, rate in ((no_text, 0.3), (no_image, 0.1), (no_text & no_image, 0.03)):
        assert stats.binomtest(int(dropped.sum()), num_steps * len(indices), rate).pvalue > 1e-4


def test_dropped_text_is_exactly_the_empty_string():
    module, batch = build(text_dropout=1.0), batch_of(4)
    seen = spy(module.network)
    module.compute_loss(batch, 0)
    for shown, null in zip(seen[0][3:6], null_text(), strict=True):
        assert torch.equal(shown, null.expand_as(shown))


def test_dropped_image_embedding_is_the_learned_null():
    module, batch = build(image_embed_dropout=1.0), batch_of(4)
    wake(module)
    loss = module.compute_loss(batch, 0).loss
    assert torch.equal(loss, module.compute_loss(batch._replace(image_embed=batch.image_embed + 1), 0).loss)
    loss.backward()
    assert module.network.null_image_embed.grad.abs().sum() > 0
    kept = build(image_embed_dropout=0.0)
    wake(kept)
    kept.compute_loss(batch, 0).loss.backward()
    assert kept.network.null_image_embed.grad.abs().sum() == 0


def test_a_whitened_decoder_is_released_as_a_plain_one(tmp_path):
    module = build(whiten_image_embed=True)
    with pytest.raises(AssertionError, match="whiten_image_embed"):
        module.compute_loss(batch_of(2), 0)
    variances = torch.linspace(0.1, 2.0, EMBED_DIM, dtype=torch.float64)
    whiten_image_embed(module.network, [0.5] * EMBED_DIM, variances.diag())
    assert module.compute_loss(batch_of(2), 0).loss.isfinite()
    module.write_model(module.network.state_dict(), tmp_path)
    released = load_file(tmp_path / "model.safetensors")
    assert released.keys() == Decoder(CONFIG.network).state_dict().keys()


def test_an_amplified_decoder_hears_the_image_embedding_louder_and_nothing_else():
    plain, loud = Decoder(CONFIG.network), Decoder(CONFIG.network)
    loud.load_state_dict(plain.state_dict())
    amplify_image_embed(loud, 3.0)
    embed, text = random(2, EMBED_DIM), random_text(2)

    def seen(network, image_embed):
        context, time = network.text_proj(image_embed, text.text_embed, text.text_encodings, None)
        return torch.cat([context.flatten(1), time], dim=1)

    silent = seen(plain, torch.zeros_like(embed))
    assert torch.equal(seen(loud, torch.zeros_like(embed)), silent)
    torch.testing.assert_close(seen(loud, embed) - silent, 3 * (seen(plain, embed) - silent))


def test_a_gain_of_nothing_is_told():
    with pytest.raises(InputError, match=r"image_embed_gain is 0\.0"):
        build(image_embed_gain=0.0)


def test_first_loss_is_the_noises_power():
    module, batch = build(objective=SIMPLE), batch_of(16)
    loss = module.compute_loss(batch, 0).loss
    eps = diffusion_draws(7, 0, batch.index, 1000, (3, SIZE, SIZE)).eps
    torch.testing.assert_close(loss, eps.square().mean())
    assert loss.item() == pytest.approx(1, abs=0.1)
    assert build().compute_loss(batch, 0).loss > loss


def test_loss_is_the_mean_of_its_parts():
    module, batch = build(), batch_of(8)
    wake(module)
    whole = module.compute_loss(batch, 5).loss
    parts = [
        module.compute_loss(rows(batch, part), 5).loss
        for part in (torch.arange(0, 8, 2), torch.arange(1, 8, 2))
    ]
    torch.testing.assert_close(whole, sum(parts) / 2)


def test_it_learns_a_tiny_batch():
    losses = train(build(objective=SIMPLE), batch_of(4), 25, 5e-3)
    assert sum(losses[-10:]) / 10 < 0.7 * losses[0]


@pytest.mark.parametrize("name", ["text_dropout", "image_embed_dropout"])
def test_impossible_settings_are_named(name):
    with pytest.raises(InputError, match=name):
        dataclasses.replace(CONFIG, **{name: -0.1})
