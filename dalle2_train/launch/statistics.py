"""What a network knows of the embeddings before its first step, in buffers that are the same on every rank."""

import sys

import torch
import torch.distributed as dist
from torch import Tensor

from dalle2_train.checkpoints.exchange import together
from dalle2_train.checkpoints.layout import committed_steps
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.launch.first_batches import first_batches
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.words import Words
from dalle2_train.training.ar_prior import ArPriorModule, left_out, use_components, use_dots
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.decoder import DecoderModule, whiten_image_embed
from dalle2_train.training.prior import (
    PriorModelConfig,
    PriorModule,
    statistics,
    use_statistics,
    whiten_error,
)

# Quantiles of so many similarities are within two hundredths of the whole set's.
_NUM_DOTS = 4096


def use_embeddings(job: TrainJob, module: UnclipModule, embeddings: Embeddings, words: Words) -> None:
    """Statistics of the embedded set, before weights are loaded; every rank calls it."""
    together(lambda: _use_moments(job, module, embeddings))
    if isinstance(module, ArPriorModule):
        # One rank alone: of directions that vary alike, another machine's eigensolver may choose others.
        together(lambda: _measure_codes(job, module, embeddings, words) if dist.get_rank() == 0 else None)
    for buffer in module.network.buffers():
        dist.broadcast(buffer, src=0)


def _use_moments(job: TrainJob, module: UnclipModule, embeddings: Embeddings) -> None:
    info = embeddings.info
    if isinstance(module, PriorModule):
        assert isinstance(job.recipe.model, PriorModelConfig)
        use_statistics(module.network, *statistics(job.recipe.model, info.mean, info.std))
        if module.whitens:
            whiten_error(module, _covariance(embeddings))
    if isinstance(module, DecoderModule) and module.whitens:
        whiten_image_embed(module.network, info.mean, _covariance(embeddings))


def tell_what_is_left_out(job: TrainJob, module: UnclipModule, embeddings: Embeddings) -> None:
    """Of an autoregressive prior that begins, what its components, measured or loaded, leave out of the embeddings."""
    if not isinstance(module, ArPriorModule) or dist.get_rank() != 0 or committed_steps(job.run_uri):
        return
    config, share = module.network.config, left_out(module.network, _covariance(embeddings))
    print(f"{config.num_dims} of {config.embed_dim} components leave out {share:.2%} of the embeddings' variance",
          file=sys.stderr)  # fmt: skip


def _measure_codes(job: TrainJob, module: ArPriorModule, embeddings: Embeddings, words: Words) -> None:
    """Nothing where a checkpoint, or weights to begin with, bring what was measured for them."""
    if job.init_from is not None or committed_steps(job.run_uri):
        return
    use_components(module.network, embeddings.info.mean, _covariance(embeddings))
    use_dots(module, first_batches(job, *words), _NUM_DOTS)


def _covariance(embeddings: Embeddings) -> Tensor:
    """(E, E) float64."""
    return torch.from_numpy(embeddings.covariance())
