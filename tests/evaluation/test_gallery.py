import numpy as np
import torch

from dalle2_train.data.samples.collect import Sample
from dalle2_train.evaluation.gallery import choose, fingerprint


def _samples(count: int) -> list[Sample]:
    return [
        Sample(f"{i:09d}", f"caption {i}", np.full((4, 4, 3), i, np.uint8), {"name": f"name {i}"})
        for i in range(count)
    ]


def test_the_choice_does_not_depend_on_order_or_keys() -> None:
    samples = _samples(50)
    again = [sample._replace(key=f"9{sample.key}") for sample in reversed(samples)]
    ours, theirs = choose(samples, 10), choose(again, 10)
    assert ours.captions == theirs.captions
    assert torch.equal(ours.images, theirs.images)
    assert list(ours.captions) != [sample.caption for sample in samples[:10]]


def test_a_smaller_gallery_is_the_beginning_of_a_larger_one() -> None:
    assert choose(_samples(50), 20).captions[:7] == choose(_samples(50), 7).captions


def test_pictures_stay_with_their_captions() -> None:
    gallery = choose(_samples(50), 50)
    assert [f"caption {int(image[0, 0, 0])}" for image in gallery.images] == list(gallery.captions)


def test_a_caption_occurs_once() -> None:
    samples = _samples(5)
    assert len(choose([*samples, samples[2]._replace(key="x", meta={"name": "other"})], 50)) == 5


def test_the_fingerprint_sees_a_pixel_and_a_caption() -> None:
    gallery = choose(_samples(5), 5)
    changed = _samples(5)
    changed[3].image[0, 0, 0] += 1
    renamed = [sample._replace(caption=sample.caption + "!") for sample in _samples(5)]
    prints = {fingerprint([g], 5) for g in (gallery, choose(changed, 5), choose(renamed, 5))}
    assert len(prints) == 3
    assert fingerprint([choose(_samples(5), 5)], 5) in prints
