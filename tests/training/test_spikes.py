"""A spike is far from the median, in units of how far losses are from it."""

import numpy as np

from dalle2_train.training.spikes import SpikeDetector


def test_noise_is_none_and_a_jump_is_one():
    losses = np.random.default_rng(0).normal(1.0, 0.1, 2000)
    detector = SpikeDetector()
    assert not any(detector.add(loss) for loss in losses)
    # The typical distance of a normal from its median is 0.674 standard deviations.
    assert not detector.add(1.0 + 8 * 0.0674) and detector.add(1.0 + 14 * 0.0674)
    assert not detector.add(-5.0) and not detector.add(float("nan"))


def test_too_few_losses_tell_nothing():
    detector = SpikeDetector(least=5)
    assert [detector.add(loss) for loss in (1.0, 1.1, 0.9, 1.0, 50.0)] == [False] * 5
    assert detector.add(100.0)
