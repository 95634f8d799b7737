"""The degradation, step by step against Pillow, SciPy and torch; what it draws, and that the key alone decides it."""

import io
from collections import Counter

import numpy as np
import pytest
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage, stats

from dalle2_train.data.pictures import bsr
from dalle2_train.data.pictures.bsr import BsrConfig, add_noise, blur, degrade, jpeg, shrink
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.errors import InputError

CONFIG = BsrConfig()


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(side: int = 24, seed: int = 0) -> np.ndarray:
    """Smooth shapes with an edge."""
    noise = rng(seed).standard_normal((side, side, 3))
    smooth = ndimage.gaussian_filter(noise, (side / 10, side / 10, 0)) * 400 + 128
    smooth[:, side // 2 :] += 40
    return smooth.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigmas", [(0.1, 0.1), (0.5, 1.3), (1.5, 0.0), (2.0, 2.0)])
def test_blur_equals_scipys_to_half_a_level(sigmas: tuple[float, float]):
    theirs = ndimage.gaussian_filter(picture().astype(float), (*sigmas, 0), mode="reflect", truncate=4.5)
    np.testing.assert_allclose(blur(picture(), sigmas), theirs, atol=0.51)


def test_blur_of_a_point_is_the_gaussian():
    point = np.zeros((31, 31, 3), np.uint8)
    point[15, 15] = 255
    x = np.arange(31) - 15
    gaussian = np.exp(-0.5 * (x[:, None] ** 2 / 1.2**2 + x[None] ** 2 / 0.7**2))
    np.testing.assert_allclose(blur(point, (1.2, 0.7))[..., 0], 255 * gaussian / gaussian.sum(), atol=0.51)


def test_blur_of_a_picture_smaller_than_the_kernel():
    assert (blur(np.full((3, 3, 3), 77, np.uint8), (20.0, 20.0)) == 77).all()


@pytest.mark.parametrize(
    ("resample", "mode"), [(Image.Resampling.BILINEAR, "bilinear"), (Image.Resampling.BICUBIC, "bicubic")]
)
def test_shrinking_equals_torchs_antialiased(resample: Image.Resampling, mode: str):
    image = torch.from_numpy(picture(33)).permute(2, 0, 1)[None].float()
    theirs = F.interpolate(image, size=(9, 9), mode=mode, antialias=True, align_corners=False)
    ours = shrink(picture(33), 9, resample)
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).clamp(0, 255), atol=1.01)


def test_shrinking_by_boxes_is_the_mean_of_each():
    means = picture().reshape(6, 4, 6, 4, 3).mean((1, 3))
    np.testing.assert_allclose(shrink(picture(), 6, Image.Resampling.BOX), means, atol=1.01)


@pytest.mark.parametrize("is_grey", [True, False])
def test_noise_is_white_gaussian_of_its_standard_deviation(is_grey: bool):
    grey = np.full((128, 128, 3), 128, np.uint8)
    noise = add_noise(grey, 8.0, is_grey, rng()).astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert noise.std() == pytest.approx(np.hypot(8, 12**-0.5), rel=0.02)  # rounding adds 1/12
    assert (
        stats.kstest((noise[..., 0] + rng(1).uniform(-0.5, 0.5, (128, 128))).ravel() / 8, "norm").pvalue
        > 1e-3
    )
    assert abs(np.corrcoef(noise[1:, :, 0].ravel(), noise[:-1, :, 0].ravel())[0, 1]) < 0.03
    across = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert across == 1 if is_grey else abs(across) < 0.03


def test_noise_does_not_wrap_around():
    white = add_noise(np.full((64, 64, 3), 255, np.uint8), 8.0, True, rng())
    assert white.min() > 200 and (white == 255).mean() > 0.45


@pytest.mark.parametrize("quality", [30, 80, 95])
def test_jpeg_is_what_pillow_reads_with_pillows_tables(quality: int, monkeypatch: pytest.MonkeyPatch):
    made: list[bytes] = []
    encode = simplejpeg.encode_jpeg
    monkeypatch.setattr(simplejpeg, "encode_jpeg", lambda *a, **k: made.append(encode(*a, **k)) or made[-1])
    ours, pillows = jpeg(picture(40), quality), io.BytesIO()
    opened = Image.open(io.BytesIO(made[0]))
    np.testing.assert_array_equal(ours, np.asarray(opened))
    Image.fromarray(picture(40)).save(pillows, "JPEG", quality=quality, subsampling="4:2:0")
    theirs = Image.open(pillows)
    assert opened.quantization == theirs.quantization and opened.layer == theirs.layer  # 4:2:0
    assert abs(ours.astype(int) - np.asarray(theirs)).mean() < 2


def test_worse_jpegs_are_worse():
    errors = [np.square(jpeg(picture(40), q).astype(float) - picture(40)).mean() for q in (10, 50, 95)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.fixture
def steps_of(monkeypatch: pytest.MonkeyPatch):
    """Key → the steps with what they were given, in their order."""

    def record(name: str, argument: int):
        original, seen = (
            getattr(bsr, name),
            lambda *args: calls.append((name, args[argument])) or original(*args),
        )
        monkeypatch.setattr(bsr, name, seen)

    calls: list[tuple[str, object]] = []
    for name in ("blur", "shrink", "add_noise", "jpeg"):
        record(name, 1)

    def run(key: int) -> list[tuple[str, object]]:
        calls.clear()
        Degradation(6, CONFIG)(picture(), key)
        return list(calls)

    return run


def test_every_order_comes_equally_often_and_the_last_shrinking_ends_at_the_size(steps_of):
    found = [steps_of(key) for key in range(2400)]
    orders = Counter(tuple(name for name, _ in steps) for steps in found)
    assert len(orders) == 60  # 5! / 2!
    assert stats.chisquare(list(orders.values())).pvalue > 1e-3
    sides = [[side for name, side in steps if name == "shrink"] for steps in found]
    assert {last for _, last in sides} == {6}
    assert stats.chisquare(list(Counter(first for first, _ in sides).values())).pvalue > 1e-3
    assert {first for first, _ in sides} == set(range(6, 25))


def test_strengths_are_uniform_between_their_bounds(steps_of):
    found = [step for key in range(1000) for step in steps_of(key)]
    sigmas = np.array([sigmas for name, sigmas in found if name == "blur"])
    stds = np.array([std for name, std in found if name == "add_noise"])
    qualities = Counter(quality for name, quality in found if name == "jpeg")
    for axis in (0, 1):
        assert stats.kstest(sigmas[:, axis], stats.uniform(0.1, 1.4).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(sigmas.T)[0, 1]) < 0.1
    assert stats.kstest(stds, stats.uniform(2, 6).cdf).pvalue > 1e-3
    assert set(qualities) == set(range(80, 96))
    assert stats.chisquare(list(qualities.values())).pvalue > 1e-3


def test_equal_keys_give_equal_pictures_and_others_do_not():
    make = Degradation(6, CONFIG)
    first = [make(picture(), key).tobytes() for key in range(20)]
    assert first == [make(picture(), key).tobytes() for key in range(20)]
    assert len(set(first)) == 20


def test_it_stays_in_place():
    """On average over what is drawn, a spot's centre of mass is where it was."""
    row, column = np.mgrid[0:32, 0:32] + 0.5
    spot = 100 * np.exp(-((row - 11.3) ** 2 + (column - 18.6) ** 2) / 18)
    board = np.rint(80 + spot).astype(np.uint8)[..., None].repeat(3, 2)
    mean = (
        np.mean([degrade(board, 8, CONFIG, rng(key)).astype(float) for key in range(400)], axis=(0, 3)) - 80
    )
    places = 4 * (np.arange(8) + 0.5)
    assert mean.sum() == pytest.approx(spot.sum() / 16, rel=0.02)
    assert (mean.sum(1) * places).sum() / mean.sum() == pytest.approx(11.3, abs=0.15)
    assert (mean.sum(0) * places).sum() / mean.sum() == pytest.approx(18.6, abs=0.15)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blur_sigma": (1.0, 0.5)}, "blur_sigma"),
        ({"noise_std": (-1.0, 2.0)}, "noise_std"),
        ({"jpeg_quality": (0, 90)}, "jpeg_quality"),
        ({"jpeg_quality": (90, 101)}, "jpeg_quality"),
    ],
)
def test_impossible_settings_are_named(settings: dict, named: str):
    with pytest.raises(InputError, match=named):
        BsrConfig(**settings)
