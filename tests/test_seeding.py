"""Draws depend on their key alone."""

import torch

from dalle2_train import seeding


def test_a_key_is_the_same_on_every_machine():
    assert (
        seeding.key(0, "noise", 1, 2)
        == int.from_bytes(
            __import__("hashlib").blake2b(b"0\x1fnoise\x1f1\x1f2", digest_size=8).digest(), "big"
        )
        >> 1
    )
    assert 0 <= seeding.key(2**62, "x") < 2**63


def test_indices_do_not_run_together():
    assert seeding.key(0, "noise", 1, 23) != seeding.key(0, "noise", 12, 3)


def test_a_sample_draws_the_same_in_any_batch():
    whole = seeding.normal((3, 2), 7, "noise", 5, torch.arange(8))
    half = seeding.normal((3, 2), 7, "noise", 5, torch.tensor([4, 6]))
    assert torch.equal(whole[[4, 6]], half)
    assert torch.equal(
        seeding.uniform(7, "drop", 5, torch.arange(8))[3:5],
        seeding.uniform(7, "drop", 5, torch.tensor([3, 4])),
    )


def test_draws_follow_their_distributions():
    index = torch.arange(4000)
    u = seeding.uniform(0, "u", 0, index)
    t = seeding.integers(1000, 0, "t", 0, index).double()
    eps = seeding.normal((4,), 0, "eps", 0, index)
    assert abs(u.mean() - 0.5) < 0.02 and abs(u.std() - 12**-0.5) < 0.02
    assert abs(t.mean() - 499.5) < 20 and t.min() >= 0 and t.max() <= 999
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.03
