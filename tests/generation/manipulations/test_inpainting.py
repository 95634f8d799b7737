"""In-painting keeps what is kept to the level, at every stage, and draws the rest for the caption."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dalle2_train.diffusion.samplers import Resampling
from dalle2_train.errors import InputError
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.manipulations import inpainting
from dalle2_train.generation.manipulations.inpainting import paint
from dalle2_train.generation.manipulations.masks import (
    Canvas,
    kept_at,
    known_at,
    open_canvas,
    open_mask,
    resized,
)
from dalle2_train.generation.manipulations.pictures import to_signal
from dalle2_train.generation.unclip import Unclip

ONCE = Resampling()
PROMPT = "a red heart"


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
def mask(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 70 × 52 pixels, of which the middle ones are seen: the right half is painted, and a row above it."""
    painted = np.zeros((52, 70), np.uint8)
    painted[:, 36:] = painted[3] = 255
    file = tmp_path_factory.mktemp("mask") / "mask.png"
    Image.fromarray(painted).save(file)
    return file


@pytest.fixture(scope="module")
def canvases(unclip: Unclip, files: list[Path], mask: Path) -> list[Canvas]:
    """Of two pictures."""
    return [open_canvas(str(file), str(mask), unclip) for file in files]


def test_what_is_kept_comes_out_exactly(
    unclip: Unclip, canvases: list[Canvas], config: GenerationConfig
) -> None:
    for resampling in (ONCE, Resampling(2, 3)):
        sheet = paint(unclip, canvases[0], PROMPT, 2, config, resampling)
        assert sheet.columns == ["picture", "what is kept", "noise 0", "noise 1"]
        picture, shown, *made = sheet.rows[""]
        kept = canvases[0].kept.expand_as(picture)
        assert torch.equal(picture, canvases[0].images[-1])
        for image in (shown, *made):
            assert torch.equal(image[kept], picture[kept])
        assert (made[0][~kept].int() - made[1][~kept].int()).abs().max() > 20
        assert (made[0][~kept].int() - picture[~kept].int()).abs().max() > 20
        assert sheet.facts["kept"] == canvases[0].kept.float().mean()
        assert sheet.facts["known"] == [known.float().mean() for known in canvases[0].known]


class Spied:
    """The stages of `paint`, in the order in which they end, before anything is pasted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Tensor] = []
        """To each upsampler: (B, 3, h, w)."""
        self.made: list[Tensor] = []
        """By each upsampler: (B, 3, H, W)."""
        real = inpainting.run_upsampler

        def watched(part, stage, image, *rest):
            self.shown.append(image)
            self.made.append(real(part, stage, image, *rest))
            return self.made[-1]

        monkeypatch.setattr(inpainting, "run_upsampler", watched)


def assert_known_is_there(made: Tensor, image: Tensor, known: Tensor) -> None:
    where = known.expand_as(made)
    assert torch.equal(made[where], to_signal(image).expand_as(made)[where])
    assert (made[~where] - to_signal(image).expand_as(made)[~where]).abs().max() > 0.1


def test_every_stage_keeps_what_it_knows_before_anything_is_pasted(
    unclip: Unclip, canvases: list[Canvas], config: GenerationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spied = Spied(monkeypatch)
    paint(unclip, canvases[0], PROMPT, 2, config, ONCE)
    for made, image, known in zip(
        (spied.shown[0], spied.made[0]), canvases[0].images, canvases[0].known, strict=True
    ):
        assert_known_is_there(made, image, known)


def test_a_cascade_does_so_up_to_the_largest_size(
    models: Mapping[str, str], second: str, config: GenerationConfig, files: list[Path], mask: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    unclip = load_unclip([*models.values(), second])
    canvas = open_canvas(str(files[0]), str(mask), unclip)
    config = replace(config, second_upsampler=replace(config.second_upsampler, num_steps=2))
    spied = Spied(monkeypatch)
    made = paint(unclip, canvas, PROMPT, 1, config, ONCE).rows[""][-1]
    assert [image.shape[-1] for image in spied.made] == [32, 64] and made.shape[-1] == 64
    for stage, image, known in zip((spied.shown[0], *spied.made), canvas.images, canvas.known, strict=True):
        assert_known_is_there(stage, image, known)
    kept = canvas.kept.expand_as(made)
    assert torch.equal(made[kept], canvas.images[-1][kept])


def test_resampling_draws_the_decoders_steps_again_and_no_others(
    unclip: Unclip, canvases: list[Canvas], config: GenerationConfig
) -> None:
    seen: dict[str, list[int]] = {"decoder": [], "upsampler": []}
    hooks = [
        network.register_forward_pre_hook(lambda _, args, to=seen[name]: to.append(int(args[1][0])))
        for name, network in (
            ("decoder", unclip.decoder.network.unet),
            ("upsampler", unclip.upsamplers[0].network),
        )
    ]
    told: list[tuple[int, int]] = []
    try:
        paint(
            unclip, canvases[0], PROMPT, 1, config, Resampling(3, 4), progress=lambda *now: told.append(now)
        )
    finally:
        for hook in hooks:
            hook.remove()
    steps = sorted(set(seen["decoder"]), reverse=True)
    assert seen["decoder"] == 3 * steps[:4] + 3 * steps[4:] and len(steps) == 6
    assert len(seen["upsampler"]) == 2
    assert told[-1] == (2 + 18 + 2, 2 + 18 + 2)


def test_batches_change_nothing_and_captions_do(
    unclip: Unclip, canvases: list[Canvas], config: GenerationConfig
) -> None:
    whole = paint(unclip, canvases[0], PROMPT, 3, config, ONCE).rows[""]
    split = paint(unclip, canvases[0], PROMPT, 3, replace(config, batch_size=2), ONCE).rows[""]
    assert (whole.int() - split.int()).abs().max() <= 2
    other = paint(unclip, canvases[0], "the moon", 3, config, ONCE).rows[""]
    assert (whole.int() - other.int()).abs().max() > 20


def test_what_is_kept_has_a_say_in_what_is_new(
    unclip: Unclip, canvases: list[Canvas], config: GenerationConfig
) -> None:
    one, two = (paint(unclip, canvas, PROMPT, 1, config, ONCE).rows[""][-1] for canvas in canvases)
    new = ~canvases[0].kept.expand_as(one)
    assert (one[new].int() - two[new].int()).abs().max() > 20


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_what_is_painted_over_has_none(
    suffix: str, unclip: Unclip, config: GenerationConfig, tmp_path: Path
) -> None:
    """Nor have its colours that resampling carries over the mask's edge, into pixels that are kept."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    painted = np.zeros((128, 128), np.uint8)
    painted[16:80, 48:] = 255  # of whole blocks: JPEG's own would mix both sides otherwise
    Image.fromarray(painted).save(tmp_path / "mask.png")
    made, canvases = [], []
    for number in range(2):
        pixels[painted > 0] = draws.integers(0, 256, (int((painted > 0).sum()), 3), dtype=np.uint8)
        file = tmp_path / f"{number}.{suffix}"
        Image.fromarray(pixels).save(file, quality=95, subsampling=0)
        canvases.append(open_canvas(str(file), str(tmp_path / "mask.png"), unclip))
        made.append(paint(unclip, canvases[-1], PROMPT, 1, config, ONCE).rows[""][-1])
    one, two = canvases
    for image, other, known in zip(one.images, two.images, one.known, strict=True):
        assert torch.equal(image[known.expand_as(image)], other[known.expand_as(image)])
        # The pixels that cover no painted one do not do.
        covering = kept_at(torch.from_numpy(painted)[None].float(), image.shape[-1]).expand_as(image)
        assert not torch.equal(image[covering], other[covering])
        assert known.any() and not known[~covering[:1]].any()
    new = ~one.kept.expand_as(made[0])
    assert torch.equal(made[0][new], made[1][new])


@pytest.mark.parametrize(("side", "size"), [(52, 16), (52, 51), (40, 40), (20, 32), (128, 8)])
def test_known_pixels_are_those_that_pillow_makes_of_kept_ones_alone(side: int, size: int) -> None:
    rows = np.stack([
        np.asarray(Image.fromarray(impulse[None].repeat(side, 0)).resize((size, size), Image.Resampling.BICUBIC))[0]
        for impulse in np.eye(side, dtype=np.float32)
    ], axis=1)  # (size, side): the weight of each pixel of a row  # fmt: skip
    for column in range(side):
        painted = torch.zeros(1, side, side)
        painted[:, :, column] = 1
        known = known_at(painted, size)[0].numpy()
        assert not known[:, rows[:, column] != 0].any()
        # Of a pixel between two others, weights of neither may be 0 at one of the kernel's zeros.
        assert (~known[0]).sum() <= (rows[:, column] != 0).sum() + 4 * max(1, round(size / side))
        np.testing.assert_array_equal(known_at(painted.mT, size)[0].numpy(), known.T)


def test_a_picture_is_resized_as_data_are() -> None:
    picture = torch.randint(
        0, 256, (3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    theirs = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((16, 16), Image.Resampling.BICUBIC)
    assert torch.equal(resized(picture, 16), torch.from_numpy(np.array(theirs)).permute(2, 0, 1))
    assert torch.equal(resized(picture, 40), picture)


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
    painted = open_mask(str(tmp_path / "mask.png"), picture)
    expected = np.zeros((52, 52), np.float32)
    expected[:, 40 - 9 :] = 1
    np.testing.assert_array_equal(painted[0].numpy(), expected)
    cleared = Image.new("RGBA", (70, 52), (0, 0, 0, 255))
    cleared.paste((0, 0, 0, 0), (40, 0, 70, 52))
    cleared.save(tmp_path / "cleared.png")
    assert torch.equal(open_mask(str(tmp_path / "cleared.png"), picture), painted)


def test_masks_that_do_not_fit_are_named(files: list[Path], tmp_path: Path) -> None:
    Image.new("L", (52, 52), 255).save(tmp_path / "square.png")
    with pytest.raises(InputError, match=r"has 52x52 pixels, .* 70x52"):
        open_mask(str(tmp_path / "square.png"), str(files[0]))
    Image.new("L", (70, 52)).save(tmp_path / "black.png")
    with pytest.raises(InputError, match="nothing in the middle square of its 70x52 pixels is white"):
        open_mask(str(tmp_path / "black.png"), str(files[0]))
