"""Pictures that differ in colour and place, so that eyes that only average pixels can tell them apart."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from dalle2_train.data.samples.collect import Sample
from dalle2_train.evaluation import Generated, questions


class PixelEyes:
    """Features are the picture's pixels at 8 by 8."""

    def encode_image(self, image: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(image.float() / 255, 8).flatten(1)


def make_samples(split: str, count: int, size: int = 16) -> list[Sample]:
    rng = np.random.default_rng(len(split))
    return [
        Sample(
            key=f"{split}{i:05d}",
            caption=f"{split} picture {i} <&>",
            image=np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((size // 4, size // 4, 1))).astype(
                np.uint8
            ),
            meta={"name": f"{split}-{i}"},
        )
        for i in range(count)
    ]


@pytest.fixture
def eyes() -> PixelEyes:
    return PixelEyes()


@pytest.fixture
def fake_data(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Sample]]:
    """The samples by split that `collect` gives."""
    data = {"train": make_samples("train", 40), "validation": make_samples("validation", 30)}
    data["compositional"] = make_samples("compositional", 25)

    def collect(uri: str, split: str, image_size: int, limit: int | None = None) -> list[Sample]:
        return data.get(split, [])[:limit]

    monkeypatch.setattr(questions, "collect", collect)
    monkeypatch.setattr(
        questions, "splits_of", lambda uri: {split: len(found) for split, found in data.items()}
    )
    return data


@pytest.fixture
def perfect(fake_data: dict[str, list[Sample]]) -> Callable[[list[str], int], Generated]:
    """A model that returns the real picture of every caption."""
    by_caption = {sample.caption: sample.image for samples in fake_data.values() for sample in samples}

    def generate(captions: list[str], seed: int) -> Generated:
        images = [torch.from_numpy(np.array(by_caption[c])).permute(2, 0, 1) for c in captions]
        return Generated(torch.stack(images))

    return generate
