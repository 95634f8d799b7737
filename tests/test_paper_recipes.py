"""The recipes named paper and karlo hold the numbers of their source, and the parts of a size fit one another."""

from typing import Any

import pytest

from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.recipe import load_recipe

# Table 3 of Ramesh et al. 2022: batch, iterations, learning rate, beta2, epsilon, weight decay, EMA decay, dropout.
TABLE = {
    "ar_prior/paper": (4096, 1_000_000, 1.6e-4, 0.91, 1e-10, 4e-2, 0.999, 0.0),
    "prior/paper": (4096, 600_000, 1.1e-4, 0.96, 1e-6, 6e-2, 0.9999, 0.0),
    "decoder/paper": (2048, 800_000, 1.2e-4, 0.999, 1e-8, 0.0, 0.9999, 0.1),
    "upsampler/paper-256": (1024, 1_000_000, 1.2e-4, 0.999, 1e-8, 0.0, 0.9999, 0.1),
    "upsampler/paper-1024": (512, 1_000_000, 1e-4, 0.999, 1e-8, 0.0, 0.9999, 0.0),
}
# Channels, depth, multipliers.
UNETS = {
    "decoder/paper": (512, 3, (1, 2, 3, 4)),
    "upsampler/paper-256": (320, 3, (1, 2, 3, 4)),
    "upsampler/paper-1024": (192, 2, (1, 1, 2, 2, 4, 4)),
}
SETS = {
    "base": ("clip/base", "prior/base", "decoder/base", "upsampler/base"),
    "karlo": ("clip/karlo", "prior/karlo", "decoder/karlo", "upsampler/karlo"),
    "paper": ("clip/paper", "prior/paper", "decoder/paper", "upsampler/paper-256"),
}


def model_of(name: str) -> Any:
    return load_recipe(name).model


@pytest.mark.parametrize("name", TABLE)
def test_a_paper_recipe_is_a_column_of_the_papers_table(name: str) -> None:
    recipe = load_recipe(name)
    training, optimizer = recipe.training, recipe.optimizer
    assert (training.global_batch_size, training.num_steps, optimizer.learning_rate, optimizer.beta2, optimizer.epsilon,
            optimizer.weight_decay, training.ema_decay, model_of(name).network.dropout) == TABLE[name]  # fmt: skip
    assert optimizer.beta1 == 0.9 and optimizer.schedule == "constant"
    if name != "ar_prior/paper":
        schedule = model_of(name).schedule
        assert (schedule.num_steps, schedule.name) == (1000, "linear" if name.endswith("1024") else "cosine")


@pytest.mark.parametrize("name", UNETS)
def test_a_paper_unet_has_the_tables_widths(name: str) -> None:
    channels, depth, multipliers = UNETS[name]
    network = model_of(name).network
    assert network.channels == tuple(channels * multiplier for multiplier in multipliers)
    assert network.num_resnets == depth


def test_the_papers_text_is_conditioned_on_and_dropped_as_it_says() -> None:
    prior, decoder = model_of("prior/paper"), model_of("decoder/paper")
    own = TextEncoderConfig(context_length=256, vocab_size=49408, width=2048, depth=24, num_heads=32)
    codes = model_of("ar_prior/paper")
    assert prior.network.text_encoder == decoder.network.text_encoder == codes.network.text_encoder == own
    assert (codes.network.width, codes.network.depth, codes.network.num_heads) == (1664, 24, 26)
    assert (codes.network.num_dims, codes.network.num_buckets, codes.condition_dropout) == (319, 1024, 0.1)
    assert (prior.embedding_scale, prior.condition_dropout, prior.objective.prediction_type) == (
        17.2,
        0.1,
        "sample",
    )
    assert (decoder.text_dropout, decoder.image_embed_dropout) == (0.5, 0.1)
    assert decoder.objective.learned_variance and decoder.objective.prediction_type == "epsilon"
    assert decoder.network.attention == (False, True, True, True) and decoder.network.head_dim == 64
    assert {model_of(name).crop_fraction for name in TABLE if name.startswith("upsampler")} == {0.25}


def test_the_papers_upsamplers_learn_from_what_it_says() -> None:
    first, second = (model_of(f"upsampler/{name}").degradation for name in ("paper-256", "paper-1024"))
    assert (first.kind, first.sigma, second.kind) == ("gaussian_blur", 0.6, "bsr")


def test_the_papers_clip_has_the_numbers_that_it_gives() -> None:
    recipe = load_recipe("clip/paper")
    assert (recipe.optimizer.learning_rate, recipe.optimizer.sam_rho) == (3e-4, 0.1)
    encoder = model_of("clip/paper").encoder
    assert (encoder.vision_width, encoder.vision_depth, encoder.patch_size, encoder.image_size) == (
        1280,
        32,
        16,
        256,
    )
    assert (encoder.text_depth, encoder.embed_dim) == (24, 1024)


def test_karlos_networks_and_drops_are_those_of_its_configs() -> None:
    prior, decoder = model_of("prior/karlo"), model_of("decoder/karlo")
    assert (prior.network.width, prior.network.depth, prior.network.num_text_tokens) == (2048, 20, 77)
    assert (prior.condition_dropout, prior.embedding_scale) == (0.2, None)
    assert (decoder.network.context_width, decoder.network.time_width) == (1536, 1280)
    assert (decoder.text_dropout, decoder.image_embed_dropout, decoder.network.dropout) == (0.3, 0.1, 0.1)
    assert model_of("upsampler/karlo").network.channels == decoder.network.channels == (320, 640, 960, 1280)


@pytest.mark.parametrize("size", ["base", "paper"])
def test_the_two_priors_of_a_size_read_the_same(size: str) -> None:
    codes, diffusion = model_of(f"ar_prior/{size}").network, model_of(f"prior/{size}").network
    for name in ("embed_dim", "num_text_tokens", "text_encoder"):
        assert getattr(codes, name) == getattr(diffusion, name)


@pytest.mark.parametrize("size", SETS)
def test_the_parts_of_a_size_fit_together(size: str) -> None:
    clip, prior, decoder, upsampler = (model_of(name) for name in SETS[size])
    assert clip.encoder.embed_dim == prior.network.embed_dim == decoder.network.embed_dim
    assert decoder.network.image_size == upsampler.network.low_size
    if size == "paper":
        second = model_of("upsampler/paper-1024").network
        assert (upsampler.network.high_size, second.high_size) == (second.low_size, 1024)
        return
    # What diffusers' folder can hold.
    assert clip.encoder.context_length == prior.network.num_text_tokens
    assert prior.network.text_encoder is decoder.network.text_encoder is None
    assert {part.schedule.name for part in (prior, decoder, upsampler)} == {"cosine"}
    assert (prior.objective.prediction_type, decoder.objective.prediction_type) == ("sample", "epsilon")
    assert decoder.objective.learned_variance


@pytest.mark.parametrize("name", [name for names in SETS.values() for name in names])
def test_profiles_are_whose_they_are(name: str) -> None:
    assert load_recipe(name).profile == ("paper" if "paper" in name else "karlo")
