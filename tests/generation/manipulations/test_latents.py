"""Pictures as (z_i, x_T), and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.manipulations.drawing import Session, check_config, draw
from dalle2_train.generation.manipulations.latents import InversionConfig, Latents, find_latents
from dalle2_train.generation.manipulations.pictures import Picture, open_picture, to_signal
from dalle2_train.generation.pixels import psnr, to_uint8
from dalle2_train.generation.unclip import Unclip


def nothing() -> None:
    pass


def test_a_picture_of_any_kind_is_cut_as_training_data_are(unclip: Unclip, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    for name, turned in (("wide.png", pixels), ("tall.webp", pixels.transpose(1, 0, 2))):
        Image.fromarray(turned).save(tmp_path / name, lossless=True)
        found = open_picture(str(tmp_path / name), unclip)
        size = found.full.shape[-1]
        cut = turned[:, 10:50] if name == "wide.png" else turned[10:50]
        theirs = np.asarray(Image.fromarray(cut).resize((size, size), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(found.full.permute(1, 2, 0).numpy(), theirs)
        assert [tuple(stage.shape) for stage in found.stages] == [(3, 16, 16), (3, 32, 32)]
        assert found.for_clip.shape == (3, 16, 16)


def test_what_is_no_picture_is_named(unclip: Unclip, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("nothing")
    with pytest.raises(InputError, match=r"text\.png: .*give a JPEG, PNG or WebP"):
        open_picture(str(tmp_path / "text.png"), unclip)
    with pytest.raises(InputError, match=r"none\.png: there is no such picture"):
        open_picture(str(tmp_path / "none.png"), unclip)


def test_to_signal_is_undone_by_to_uint8() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_signal(values)), values)


def given_back(unclip: Unclip, latents: Latents, pictures: list[Picture], config: GenerationConfig) -> float:
    """The lower PSNR of the two."""
    drawn = draw(Session(unclip, config, 0, nothing), latents, torch.arange(2)).small
    return min(
        psnr(small, to_signal(p.small), span=2).item() for small, p in zip(drawn, pictures, strict=True)
    )


def test_the_embedding_is_clips_and_the_noise_gives_the_picture_back(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    """How well a trained decoder does is benchmarks/inversion.py's to measure."""
    calls: list[None] = []
    plain, refined = (
        find_latents(unclip, pictures, fast.decoder, InversionConfig(times), lambda: calls.append(None))
        for times in (0, 4)
    )
    assert len(calls) == InversionConfig(0).num_calls(10) + InversionConfig(4).num_calls(10) == 9 + 49
    expected = unclip.clip.encode_image(torch.stack([picture.for_clip for picture in pictures]))
    torch.testing.assert_close(refined.image_embed, expected)
    psnrs = [given_back(unclip, latents, pictures, fast) for latents in (plain, refined)]
    assert psnrs[1] > 60 and psnrs[1] > psnrs[0] + 20, psnrs
    others = refined._replace(image_embed=refined.image_embed.flip(0))
    assert given_back(unclip, others, pictures, fast) < psnrs[1] - 20


def test_guidance_eta_and_clipping_are_the_drawings_alone(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    plain = find_latents(unclip, pictures, fast.decoder, InversionConfig(0), nothing)
    loud = replace(fast.decoder, guidance_scale=3.0, eta=1.0, clip_sample_range=1.0)
    torch.testing.assert_close(find_latents(unclip, pictures, loud, InversionConfig(0), nothing), plain)


def test_latents_do_not_depend_on_their_neighbours(
    unclip: Unclip, pictures: list[Picture], fast: GenerationConfig
) -> None:
    both = find_latents(unclip, pictures, fast.decoder, InversionConfig(1), nothing)
    for i, picture in enumerate(pictures):
        alone = find_latents(unclip, [picture], fast.decoder, InversionConfig(1), nothing)
        torch.testing.assert_close(alone.x_T[0], both.x_T[i], atol=1e-4, rtol=0)


def test_settings_under_which_x_T_says_nothing_are_refused(unclip: Unclip, fast: GenerationConfig) -> None:  # noqa: N802
    for changed in (replace(fast.decoder, sampler="ddpm"), replace(fast.decoder, num_steps=1)):
        with pytest.raises(InputError, match="found and drawn from by ddim with 2 steps or more"):
            check_config(unclip, replace(fast, decoder=changed))
    with pytest.raises(InputError, match=r"decoder\.num_steps=1001: the decoder was trained with 1000"):
        check_config(unclip, replace(fast, decoder=replace(fast.decoder, num_steps=1001)))
    with pytest.raises(InputError, match="num_refinements=-1"):
        InversionConfig(-1)
