"""What the tests of the families share: short settings, stand-in embeddings, and a bare training loop."""

from typing import Any

import torch
from torch import Tensor, nn

from dalle2_train.encoders.encoder import TextFeatures
from dalle2_train.training.config import OptimizerConfig, TrainingConfig

EMBED_DIM, CONTEXT_LENGTH = 16, 6
SETTINGS = (TrainingConfig(num_steps=10, global_batch_size=8, seed=7), OptimizerConfig(learning_rate=1e-3))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_text(num_samples: int, seed: int = 1) -> TextFeatures:
    lengths = torch.arange(num_samples) % CONTEXT_LENGTH + 1
    return TextFeatures(
        random(num_samples, EMBED_DIM, seed=seed),
        random(num_samples, CONTEXT_LENGTH, EMBED_DIM, seed=seed + 1),
        torch.arange(CONTEXT_LENGTH) < lengths[:, None],
    )


def null_text() -> TextFeatures:
    return random_text(1, seed=50)


def random_pictures(num_samples: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (num_samples, 3, size, size), dtype=torch.uint8, generator=generator)


def rows(batch: Any, chosen: Tensor) -> Any:
    """Some samples of a batch, as another rank or a micro-batch would hold them."""
    return type(batch)(*(value[chosen] for value in batch))


def spy(network: nn.Module) -> list[tuple[Tensor, ...]]:
    """The arguments of every forward from here on."""
    seen: list[tuple[Tensor, ...]] = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args))
    return seen


def train(module: Any, batch: Any, num_steps: int, learning_rate: float) -> list[float]:
    """Losses of a bare loop over one batch, whose samples draw anew at every step."""
    optimizer = torch.optim.Adam(module.network.parameters(), lr=learning_rate)
    losses = []
    for step in range(num_steps):
        loss = module.compute_loss(batch, step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
