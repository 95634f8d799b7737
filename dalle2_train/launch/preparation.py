"""What a module takes over before its first step: statistics of the embeddings, and weights to begin with."""

import sys

import torch
import torch.distributed as dist
from torch import Tensor

from dalle2_train.checkpoints import model_digest
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.launch.first_batches import first_batches
from dalle2_train.launch.initial import check_initial, initial_digest, open_initial
from dalle2_train.launch.job import TrainJob
from dalle2_train.launch.words import Words
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.training.ar_prior import ArPriorModule, use_components, use_dots
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.clip import ClipModelConfig, ClipModule
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


def prepare(
    job: TrainJob,
    module: UnclipModule,
    embeddings: Embeddings | None,
    clip: ClipEncoder | None,
    words: Words,
) -> str | None:
    """Statistics of the embeddings and weights to begin with, whose digest is returned."""
    info = embeddings.info if embeddings is not None else None
    if isinstance(module, PriorModule) and info is not None:
        assert isinstance(job.recipe.model, PriorModelConfig)
        use_statistics(module.network, *statistics(job.recipe.model, info.mean, info.std))
    if isinstance(module, ArPriorModule) and info is not None:
        use_components(module.network, info.mean, _covariance(embeddings))
        _tell_what_is_left_out(module.network)
        if job.init_from is None:
            use_dots(module, first_batches(job, *words), _NUM_DOTS)
    if isinstance(module, DecoderModule) and module.whitens and info is not None:
        whiten_image_embed(module.network, info.mean, _covariance(embeddings))
    init_from = None
    if job.init_from is not None:
        init_from = _begin(job, job.init_from, module, clip)
    if isinstance(module, PriorModule) and module.whitens and info is not None:
        # Last, because weights to begin with bring the statistics that they were trained with.
        whiten_error(module, _covariance(embeddings))
    return init_from


def _tell_what_is_left_out(network: ArPrior) -> None:
    if dist.get_rank() == 0:
        config, share = network.config, float(network.embed_codes.left_out)
        print(f"{config.num_dims} of {config.embed_dim} components leave out {share:.2%} of the embeddings' variance",
              file=sys.stderr)  # fmt: skip


def _begin(job: TrainJob, uri: str, module: UnclipModule, clip: ClipEncoder | None) -> str:
    """Load the weights to begin with; returns their model's digest. A CLIP was built with them."""
    if isinstance(module, ClipModule):
        return initial_digest(uri, "clip")
    assert not isinstance(job.recipe.model, ClipModelConfig)
    initial = open_initial(uri, job.recipe.family)
    check_initial(uri, initial, module.network, job.recipe.model.network, clip)
    state = initial.state
    if isinstance(module, PriorModule) and not state["clip_std"].any():
        # Zeros are what diffusers begins with: nobody has measured them.
        state = state | {name: getattr(module.network, name) for name in ("clip_mean", "clip_std")}
    module.network.load_state_dict(state)
    return model_digest(initial.manifest)


def _covariance(embeddings: Embeddings | None) -> Tensor:
    """(E, E) float64."""
    assert embeddings is not None
    return torch.from_numpy(embeddings.covariance())
