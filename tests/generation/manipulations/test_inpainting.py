"""In-painting keeps what is kept to the level, at every stage, and draws the rest for the caption."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dalle2_train.diffusion.samplers import Resampling
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.manipulations.inpainting import paint
from dalle2_train.generation.manipulations.masks import Canvas, kept_at, open_masks
from dalle2_train.generation.manipulations.pictures import Picture
from dalle2_train.generation.unclip import Unclip

ONCE = Resampling()


@pytest.fixture(scope="module")
def config(fast: GenerationConfig) -> GenerationConfig:
    """Karlo's samplers, which draw noise, in a few steps."""
    karlo = GenerationConfig()
    return replace(
        fast,
        prior=replace(karlo.prior, num_steps=2),
        decoder=replace(karlo.decoder, sampler="ddpm", num_steps=6),
    )


@pytest.fixture(scope="module")
def masks() -> tuple[Tensor, ...]:
    """The right half is painted, and an odd row above it."""
    painted = torch.zeros(1, 52, 52)
    painted[:, :, 27:] = 1
    painted[:, 3] = 1
    return tuple(kept_at(painted, size) for size in (16, 32))


def test_what_is_kept_comes_out_exactly(
    unclip: Unclip, pictures: list[Picture], masks: tuple[Tensor, ...], config: GenerationConfig
) -> None:
    for resampling in (ONCE, Resampling(2, 3)):
        sheet = paint(unclip, Canvas(pictures[0].stages, masks), "a red heart", 2, config, resampling)
        assert sheet.columns == ["picture", "what is kept", "noise 0", "noise 1"]
        picture, kept, *made = sheet.rows[""]
        mask = masks[-1].expand_as(picture)
        assert torch.equal(picture, pictures[0].full)
        for image in (kept, *made):
            assert torch.equal(image[mask], picture[mask])
        assert (made[0][~mask].int() - made[1][~mask].int()).abs().max() > 20
        assert (made[0][~mask].int() - picture[~mask].int()).abs().max() > 20


def test_without_the_paste_it_is_as_exact_at_the_decoders_size(
    unclip: Unclip, pictures: list[Picture], masks: tuple[Tensor, ...], config: GenerationConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The upsampler sees the kept pixels, not something near them."""
    from dalle2_train.generation.manipulations import inpainting

    seen: list[Tensor] = []
    real = inpainting.run_upsampler

    def watched(part, stage, image, *rest):
        seen.append(image)
        return real(part, stage, image, *rest)

    monkeypatch.setattr(inpainting, "run_upsampler", watched)
    paint(unclip, Canvas(pictures[0].stages, masks), "a red heart", 2, config, ONCE)
    mask = masks[0].expand(2, 3, -1, -1)
    expected = (pictures[0].small.float() / 127.5 - 1).expand(2, -1, -1, -1)
    assert torch.equal(seen[0][mask], expected[mask])


def test_a_cascade_keeps_it_at_the_largest_size(
    models: Mapping[str, str], tiny: SimpleNamespace, config: GenerationConfig, tmp_path: Path
) -> None:
    sizes = replace(tiny.NETWORKS["upsampler"][1], low_size=32, high_size=64)
    second = tiny.write_part(tmp_path / "second", "upsampler", None, network_config=sizes)
    unclip = load_unclip([*models.values(), str(second)])
    images = tuple(torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for size in (16, 32, 64))
    painted = torch.zeros(1, 64, 64)
    painted[:, :, 37:] = 1
    canvas = Canvas(images, tuple(kept_at(painted, size) for size in (16, 32, 64)))
    config = replace(config, second_upsampler=replace(config.second_upsampler, num_steps=2))
    made = paint(unclip, canvas, "a red heart", 1, config, ONCE).rows[""][-1]
    assert torch.equal(made[:, :, :37], images[-1][:, :, :37])
    assert (made[:, :, 37:].int() - images[-1][:, :, 37:].int()).abs().max() > 20


def test_batches_change_nothing_and_captions_do(
    unclip: Unclip, pictures: list[Picture], masks: tuple[Tensor, ...], config: GenerationConfig
) -> None:
    whole = paint(unclip, Canvas(pictures[0].stages, masks), "a red heart", 3, config, ONCE).rows[""]
    split = paint(
        unclip, Canvas(pictures[0].stages, masks), "a red heart", 3, replace(config, batch_size=2), ONCE
    ).rows[""]
    assert (whole.int() - split.int()).abs().max() <= 2
    other = paint(unclip, Canvas(pictures[0].stages, masks), "the moon", 3, config, ONCE).rows[""]
    assert (whole.int() - other.int()).abs().max() > 20


def test_what_is_kept_has_a_say_in_what_is_new(
    unclip: Unclip, pictures: list[Picture], masks: tuple[Tensor, ...], config: GenerationConfig
) -> None:
    one, two = (
        paint(unclip, Canvas(p.stages, masks), "a red heart", 1, config, ONCE).rows[""][-1] for p in pictures
    )
    mask = masks[-1].expand_as(one)
    assert (one[~mask].int() - two[~mask].int()).abs().max() > 20


def test_a_pixel_is_kept_where_all_under_it_is() -> None:
    painted = (torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    for size in (24, 12, 8, 6):
        step = 24 // size
        blocks = painted[0].numpy().reshape(size, step, size, step)
        np.testing.assert_array_equal(kept_at(painted, size)[0].numpy(), blocks.max(axis=(1, 3)) == 0)
    larger = kept_at(painted, 48)[0].numpy()
    np.testing.assert_array_equal(larger, (painted[0].numpy() == 0).repeat(2, 0).repeat(2, 1))


def test_masks_from_files(files: list[Path], tmp_path: Path) -> None:
    picture = str(files[0])  # 70 × 52: columns 9 … 60 are the middle square
    grey = np.zeros((52, 70), np.uint8)
    grey[:, 40:] = 200
    grey[:, 36:40] = 100  # nearer to black
    Image.fromarray(grey).save(tmp_path / "mask.png")
    kept = open_masks(str(tmp_path / "mask.png"), picture, [52, 26])
    expected = np.zeros((52, 52), bool)
    expected[:, : 40 - 9] = True
    np.testing.assert_array_equal(kept[0][0].numpy(), expected)
    np.testing.assert_array_equal(kept[1][0].numpy(), expected[::2, ::2] & expected[::2, 1::2])
    cleared = Image.new("RGBA", (70, 52), (0, 0, 0, 255))
    cleared.paste((0, 0, 0, 0), (40, 0, 70, 52))
    cleared.save(tmp_path / "cleared.png")
    assert torch.equal(open_masks(str(tmp_path / "cleared.png"), picture, [52])[0], kept[0])


def test_masks_that_do_not_fit_are_named(files: list[Path], tmp_path: Path) -> None:
    Image.new("L", (52, 52), 255).save(tmp_path / "square.png")
    with pytest.raises(InputError, match=r"has 52x52 pixels, .* 70x52"):
        open_masks(str(tmp_path / "square.png"), str(files[0]), [16])
    Image.new("L", (70, 52)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="nothing in the middle square of its 70x52 pixels is white"):
        open_masks(str(tmp_path / "black.png"), str(files[0]), [16])
