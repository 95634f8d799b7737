"""One rank of a contrastive loss over two linear towers, in a process of its own: RANK WORLD_SIZE FOLDER."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from dalle2_train.training.contrastive import contrastive_loss

NUM_SAMPLES = 6


def gradients(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """The loss and the gradients of one process's share of the batch, float64."""
    torch.manual_seed(0)
    image_tower, text_tower = (nn.Linear(5, 4, dtype=torch.float64) for _ in range(2))
    logit_scale = nn.Parameter(torch.tensor([1.3], dtype=torch.float64))
    inputs = torch.randn(2, NUM_SAMPLES, 5, dtype=torch.float64)[:, rank::world_size]
    image = nn.functional.normalize(image_tower(inputs[0]), dim=-1)
    text = nn.functional.normalize(text_tower(inputs[1]), dim=-1)
    found = contrastive_loss(image, text, logit_scale.exp())
    found.loss.backward()
    return {
        "loss": found.loss.detach(),
        "accuracy": found.accuracy,
        "image": image_tower.weight.grad,
        "text": text_tower.weight.grad,
        "scale": logit_scale.grad,
    }


def main() -> None:
    rank, world_size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    store = dist.FileStore(str(folder / "store"), world_size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    torch.save(gradients(rank, world_size), folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
