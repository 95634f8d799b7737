"""Muon against torch's own, which steps plain matrices alone; that ranks agree is tests/training/test_muon.py."""

from itertools import product

import pytest
import torch
from torch import nn

from dalle2_train.parallel.muon import Muon, kernels, orthogonal

SETTINGS = {"lr": 0.03, "betas": (0.8, 0.9), "eps": 1e-8}


def gradients(shape: tuple[int, ...], count: int = 4) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(shape) * 10.0**-step for step in range(count)]


@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        *(((rows, columns), torch.contiguous_format) for rows, columns in ((24, 7), (7, 24), (16, 16))),
        *product(((6, 5, 3, 3), (48, 3, 3, 3)), (torch.contiguous_format, torch.channels_last)),
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_a_matrix_moves_as_by_torchs_muon(
    shape: tuple[int, ...], memory_format: torch.memory_format, decay: float
):
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(shape).contiguous(memory_format=memory_format))
    theirs = nn.Parameter(ours.detach().flatten(1).clone())
    muon = Muon([{"params": [ours], "weight_decay": decay}], [ours], torch.bfloat16, **SETTINGS)
    reference = torch.optim.Muon([theirs], lr=0.03, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients(shape):
        ours.grad = gradient.contiguous(memory_format=memory_format)
        theirs.grad = gradient.flatten(1).clone()
        muon.step()
        reference.step()
    torch.testing.assert_close(ours.flatten(1), theirs, rtol=1e-5, atol=1e-6)


def test_all_else_moves_as_by_adamw():
    ours, theirs = (nn.Parameter(torch.ones(5)) for _ in range(2))
    matrix = nn.Parameter(torch.ones(3, 4))
    muon = Muon([{"params": [matrix]}, {"params": [ours]}], [matrix], **SETTINGS)
    reference = torch.optim.AdamW([theirs], **SETTINGS)
    for gradient in gradients((5,)):
        matrix.grad = torch.ones(3, 4)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        reference.step()
    assert torch.equal(ours, theirs) and not torch.equal(matrix, torch.ones(3, 4))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_singular_vectors_stay_and_values_become_about_one(shape: tuple[int, int]):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, -1.7, 12, dtype=torch.float64)
    found = u.T @ orthogonal(u * values @ v) @ v.T
    torch.testing.assert_close(found, found.diagonal().diag(), rtol=0, atol=1e-12)
    assert found.diagonal().min() > 0.65 and found.diagonal().max() < 1.25


def test_no_gradient_or_one_of_zeros_moves_nothing():
    matrix = nn.Parameter(torch.ones(3, 4))
    muon = Muon([{"params": [matrix]}], [matrix], weight_decay=0.0, **SETTINGS)
    muon.step()
    matrix.grad = torch.zeros(3, 4)
    muon.step()
    assert torch.equal(matrix, torch.ones(3, 4))


def test_kernels_are_matrices_and_embeddings_and_frozen_weights_are_not():
    network = nn.Sequential(
        nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Conv2d(3, 4, 3), nn.Linear(4, 4)
    )
    network[4].requires_grad_(False)
    assert {id(p) for p in kernels(network)} == {id(network[1].weight), id(network[3].weight)}
