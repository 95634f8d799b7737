"""The autoregressive prior in an unCLIP: how codes are drawn, what they depend on, and what it takes the place of."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle2_train.encoders.encoder import TextFeatures
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export import export_release
from dalle2_train.export.diffusers_folder import check_exportable
from dalle2_train.generation.ar_prior import code_draws, draw_code, sample_codes, top_half
from dalle2_train.generation.config import (
    ArPriorStageConfig,
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.pipeline import generate, generate_stages
from dalle2_train.generation.unclip import Unclip
from dalle2_train.networks.ar_prior import ArPrior

FAST = GenerationConfig(decoder=DecoderStageConfig(num_steps=2), upsampler=UpsamplerStageConfig(num_steps=1))
PROMPTS = ["a red heart", "a small cat", "", "the moon"]


@pytest.fixture(scope="module")
def ar_models(
    models: Mapping[str, str], tiny: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """`models` with an autoregressive prior in place of the other."""
    folder = tmp_path_factory.mktemp("ar") / "ar_prior"
    tiny.write_part(folder, "ar_prior", Path(models["clip"]))
    return {"ar_prior": str(folder)} | {kind: uri for kind, uri in models.items() if kind != "prior"}


@pytest.fixture(scope="module")
def ar_unclip(ar_models: dict[str, str]) -> Unclip:
    return load_unclip(list(ar_models.values()))


def embeds(unclip: Unclip, prompts: list[str], seed: int = 0, **section: float) -> Tensor:
    """The image embeddings of `prompts`, sampled two at a time."""
    config = replace(FAST, ar_prior=ArPriorStageConfig(**section), batch_size=2)
    return torch.cat([stages.image_embed for stages in generate_stages(unclip, prompts, seed, config)])


def test_codes_come_as_often_as_their_odds() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 0.5], dtype=torch.float64)
    uniform = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    rows = logits.expand(100_000, -1)

    def shares(temperature: float, top_p: float) -> np.ndarray:
        found = draw_code(rows, uniform, temperature, top_p)
        return torch.bincount(found, minlength=4).numpy() / 100_000

    for temperature in (1.0, 0.5, 3.0):
        odds = np.exp(logits.numpy() / temperature)
        np.testing.assert_allclose(shares(temperature, 1.0), odds / odds.sum(), atol=2e-5)
    odds = np.exp(logits.numpy())
    odds /= odds.sum()  # the second has 0.71 of them, it and the fourth 0.87
    assert shares(1.0, 0.5).tolist() == [0, 1, 0, 0]
    kept = odds * [0, 1, 0, 1]
    np.testing.assert_allclose(shares(1.0, 0.8), kept / kept.sum(), atol=2e-5)
    assert shares(0.0, 1.0).tolist() == [0, 1, 0, 0]


def test_codes_of_probability_zero_are_never_drawn() -> None:
    logits = torch.tensor([[-1e9, 0.0, -1e9, 0.0, -1e9]], dtype=torch.float64).expand(4, -1)
    uniform = torch.tensor([0.0, 0.5 - 1e-12, 0.5, 1 - 1e-16], dtype=torch.float64)
    assert draw_code(logits, uniform, 1.0, 1.0).tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("num_buckets", [6, 7])
def test_similarities_are_of_the_top_half(num_buckets: int) -> None:
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    found = torch.bincount(top_half(uniform, num_buckets), minlength=num_buckets)
    assert len(found) == num_buckets
    assert found[: num_buckets // 2].sum() == 0
    upper = found[num_buckets // 2 :]
    assert upper.max() - upper.min() <= 1


@pytest.mark.parametrize("scale", [1.0, 2.5])
@torch.no_grad()
def test_the_cached_loop_draws_what_whole_forwards_say(ar_unclip: Unclip, scale: float) -> None:
    """Each code again, from a forward over everything before it: guided logits, divided, and the first sum above u."""
    network = ar_unclip.prior.network
    assert isinstance(network, ArPrior)
    shape, config = network.config, ArPriorStageConfig(temperature=0.8, guidance_scale=scale)
    text, null_text = ar_unclip.clip.encode_captions(PROMPTS), ar_unclip.clip.encode_captions([""])
    uniform = code_draws(3, "test", torch.arange(4), shape)
    codes = sample_codes(network, shape, text, null_text, uniform, config)
    dots = 3 + (uniform[:, 0] * 3).long()
    nothing = TextFeatures(*(part.expand(4, *part.shape[1:]) for part in null_text))
    for place in range(shape.num_dims):
        cond = network(codes[:, :place], dots, *text)[:, -1].double()
        uncond = network(codes[:, :place], torch.full((4,), 6), *nothing)[:, -1].double()
        odds = ((uncond + scale * (cond - uncond)) / 0.8).softmax(dim=-1)
        below = odds.cumsum(dim=-1) <= uniform[:, 1 + place, None]
        assert torch.equal(codes[:, place], below.sum(dim=-1)), place


def test_a_prompt_s_embedding_depends_on_its_place_and_the_seed_alone(ar_unclip: Unclip) -> None:
    whole = embeds(ar_unclip, PROMPTS)
    config = replace(FAST, batch_size=3)
    split = torch.cat([stages.image_embed for stages in generate_stages(ar_unclip, PROMPTS, 0, config)])
    torch.testing.assert_close(whole, split)
    assert torch.equal(embeds(ar_unclip, PROMPTS), whole)
    twice = embeds(ar_unclip, ["a red heart"] * 2)
    assert not torch.equal(twice[0], twice[1])
    torch.testing.assert_close(twice[0], whole[0])
    assert not torch.equal(embeds(ar_unclip, PROMPTS, seed=1)[0], whole[0])


def test_guidance_of_one_is_none_and_of_zero_forgets_the_text(ar_unclip: Unclip) -> None:
    torch.testing.assert_close(
        embeds(ar_unclip, PROMPTS, guidance_scale=1 + 1e-9), embeds(ar_unclip, PROMPTS)
    )
    one, other = (embeds(ar_unclip, [text], guidance_scale=0.0) for text in ("a red heart", "the moon"))
    torch.testing.assert_close(one, other)


def test_pictures_and_their_progress(ar_unclip: Unclip) -> None:
    seen: list[tuple[int, int]] = []
    config = replace(FAST, batch_size=2)
    images = generate(ar_unclip, PROMPTS, 0, config, progress=lambda done, total: seen.append((done, total)))
    assert images.shape == (4, 3, 32, 32)
    assert seen == [(done, 2 * (5 + 2 + 1)) for done in range(1, 17)]


def test_sections_of_the_other_prior_are_refused(unclip: Unclip, ar_unclip: Unclip) -> None:
    of_diffusion = GenerationConfig(prior=PriorStageConfig(num_steps=9))
    with pytest.raises(InputError, match=r"generation\.prior is set, but the prior is of kind ar_prior"):
        generate(ar_unclip, ["a"], 0, of_diffusion)
    of_codes = GenerationConfig(ar_prior=ArPriorStageConfig(top_p=0.9))
    with pytest.raises(InputError, match=r"generation\.ar_prior is set, but the prior is of kind prior"):
        generate(unclip, ["a"], 0, of_codes)


@pytest.mark.parametrize("setting", [{"temperature": -1.0}, {"guidance_scale": -1.0}, {"top_p": 0.0}])
def test_what_cannot_be_is_named(setting: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(setting))}="):
        ArPriorStageConfig(**setting)


def test_an_unclip_has_one_of_the_two(models: Mapping[str, str], ar_models: dict[str, str]) -> None:
    with pytest.raises(InputError, match="a prior and an ar_prior were given"):
        load_unclip([*models.values(), ar_models["ar_prior"]])
    with pytest.raises(InputError, match=r"'prior' or 'ar_prior' was given .*dalle2-train train prior"):
        load_unclip([uri for kind, uri in ar_models.items() if kind != "ar_prior"])


def test_it_is_released_and_diffusers_refuses_it_by_name(
    ar_models: dict[str, str], ar_unclip: Unclip, tmp_path: Path
) -> None:
    release = export_release(list(ar_models.values()), str(tmp_path / "release"))
    assert set(release.models) == {"clip", "ar_prior", "decoder", "upsampler"}
    released = load_unclip([release.path])
    assert torch.equal(generate(released, PROMPTS, 0, FAST), generate(ar_unclip, PROMPTS, 0, FAST))
    with pytest.raises(RefusedError, match=r"autoregressive \(ar_prior\).*safetensors"):
        check_exportable(ar_unclip)
