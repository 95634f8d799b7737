"""A rank that assembles an autoregressive prior's training on a machine that is not the first rank's."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from toy_training import process_group

from dalle2_train.errors import InputError
from dalle2_train.launch import TrainJob, statistics
from dalle2_train.launch.assembly import assemble


def assemble_elsewhere(
    rank: int, world_size: int, store: str, job: TrainJob, fails: bool, folder: Path
) -> None:
    """Only the first rank can measure anything, or, if it `fails`, not even that one. Saves the weights, or why not."""

    def cannot(*_: object) -> None:
        raise InputError(f"rank {rank} cannot")

    torch.set_num_threads(1)
    if rank > 0 or fails:
        statistics.use_components = statistics.use_dots = cannot
    with process_group(rank, world_size, store):
        try:
            network = assemble(job).module.network
            save_file(network.state_dict(), folder / f"{rank}.safetensors")
        except InputError as error:
            (folder / f"{rank}.txt").write_text(str(error))
