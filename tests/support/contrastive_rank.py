"""One rank's share of CLIP's contrastive loss, its towers sharded over all ranks, weights in float64."""

from pathlib import Path

import tiny_clip
import torch
import torch.distributed as dist
from families import random_pictures, rows
from torch import Tensor
from torch.distributed.tensor import DTensor
from toy_training import process_group

from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.encoders import build_clip, tokenize, train_tokenizer
from dalle2_train.parallel.shard import ParallelConfig, build_mesh, shard_model
from dalle2_train.training.clip import ClipModelConfig, ClipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig

CAPTIONS = ["red heart", "apple", "a waving hand", "face", "blue car", "snow", "pig nose", "the moon"]


def gradients(rank: int, world_size: int, shard: int) -> dict[str, Tensor]:
    """The mean loss over ranks and its whole gradient, when each rank has its part of the batch and of the weights."""
    torch.manual_seed(0)
    config = tiny_clip.CONFIG
    tokenizer = train_tokenizer(CAPTIONS, config.vocab_size, config.context_length)
    settings = TrainingConfig(num_steps=1, global_batch_size=len(CAPTIONS)), OptimizerConfig()
    module = ClipModule(build_clip(config, tokenizer).double(), tokenizer, ClipModelConfig(config), *settings)
    pictures = random_pictures(len(CAPTIONS), config.image_size)
    batch = ClipBatch(torch.arange(len(CAPTIONS)), pictures, *tokenize(tokenizer, CAPTIONS))
    if world_size > 1:
        mesh = build_mesh(ParallelConfig(shard), "cpu", [world_size] * world_size)
        shard_model(module.network, mesh, module.blocks(), ParallelConfig(shard), None)
    loss = module.compute_loss(rows(batch, torch.arange(rank, len(CAPTIONS), world_size)), 0).loss
    loss.backward()
    found = {"loss": loss.detach() / world_size}
    if world_size > 1:
        dist.all_reduce(found["loss"])
    for name, parameter in module.network.named_parameters():
        gradient = parameter.grad
        assert gradient is not None and isinstance(gradient, DTensor) == (world_size > 1), name
        found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def save_gradients(rank: int, world_size: int, store: str, shard: int, folder: Path) -> None:
    """In a process of its own; the first rank writes."""
    torch.set_num_threads(1)
    with process_group(rank, world_size, store):
        found = gradients(rank, world_size, shard)
        if rank == 0:
            torch.save(found, folder / "gradients.pt")
