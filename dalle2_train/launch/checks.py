"""Whether a training can be done at all, told before anything of it is made."""

import re
import sys

import torch
from torch import Tensor

from dalle2_train import storage
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.stream.mixture import mixture_of
from dalle2_train.data.stream.summary import summarize
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError, with_article
from dalle2_train.launch.begun import check_begun, newest_checkpoint
from dalle2_train.launch.initial_fit import check_init_from
from dalle2_train.launch.job import TrainJob, find_embeddings, open_clip
from dalle2_train.launch.worker_count import WorkerCount, check_sizes
from dalle2_train.networks.embed_codes import EmbedCodes
from dalle2_train.parallel.shard import mesh_sizes
from dalle2_train.training.ar_prior import ArPriorModelConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.prior import PriorModelConfig, statistics
from dalle2_train.training.workers import WorkersConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check(job: TrainJob, workers: int | str | WorkerCount) -> None:
    """Raises InputError for whatever would stop the training later: names, sizes, data, embeddings, CLIP, weights to
    begin with, storage; RefusedError where those weights are damaged."""
    if not _NAME.fullmatch(job.name):
        raise InputError(
            f"--name {job.name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    _check_ranks(job, WorkerCount.of(workers))
    _check_data(job)
    clip = _check_conditions(job)
    if (begun := newest_checkpoint(job)) is not None:
        check_begun(job, begun)
        _check_steps(job, begun.step)
    elif job.init_from is not None:
        check_init_from(job.init_from, job.recipe, clip)
    storage.check_could_write(job.storage)


def _check_ranks(job: TrainJob, workers: WorkerCount) -> None:
    sets = [uri for source in mixture_of(job.data).sources for uri in (source.uri, source.embeddings)]
    if workers.most > 0 and any(
        uri and uri.startswith("memory:") for uri in (job.storage, job.data, job.embeddings, *sets)
    ):
        raise InputError(
            "memory: lives in one process and cannot be shared by workers; use a folder, or --workers 0"
        )
    check_sizes(workers, job.recipe.data.num_lanes)
    for num_ranks in workers.sizes:
        mesh_sizes(job.recipe.parallel, [num_ranks] * num_ranks)
    if workers.most == 0:
        _tell_of_no_effect(job.recipe.workers)


def _tell_of_no_effect(workers: WorkersConfig) -> None:
    default = vars(WorkersConfig())
    if changed := [f"workers.{name}" for name, value in vars(workers).items() if value != default[name]]:
        print(f"--workers 0 trains in this process: {', '.join(changed)} have no effect; give --workers N",
              file=sys.stderr)  # fmt: skip


def _check_data(job: TrainJob) -> None:
    data, split, family = summarize(job.data), job.recipe.data.split, job.recipe.family
    for uri in data.sets:
        check_fresh(uri)
    if not data.splits.get(split):
        raise InputError(
            f"{job.data}: no sample is in the split {split!r} (there are {data.splits}); set data.split"
        )
    if not data.has_pictures and family not in ("prior", "ar_prior"):
        raise InputError(f"{job.data}: holds embeddings and no pictures, which {with_article(family)} learns from; "
                         "give the shards with the pictures as --data, and these as --embeddings")  # fmt: skip


def _check_conditions(job: TrainJob) -> ClipEncoder | None:
    """Embeddings and CLIP, which is returned where there is one."""
    if not job.needs_embeddings:
        return open_clip(job, None) if job.needs_clip else None
    embeddings, model = find_embeddings(job), job.recipe.model
    clip = open_clip(job, embeddings.info)
    _check_sampling(job, clip)
    if isinstance(model, PriorModelConfig):
        statistics(model, embeddings.info.mean, embeddings.info.std)
    if _needs_covariance(job):
        _check_covariance(job, torch.from_numpy(embeddings.covariance()))
    return clip


def _check_steps(job: TrainJob, done: int) -> None:
    wanted = job.recipe.training.num_steps
    if done > wanted:
        raise InputError(f"{job.run_uri} has done {done} steps, but training.num_steps is {wanted}; give at least "
                         f"{done}, or another --name")  # fmt: skip


def _check_sampling(job: TrainJob, clip: ClipEncoder) -> None:
    """Pictures drawn in training stand beside those of the data, which the CLIP has to see."""
    steps, recipe = job.recipe.training.sample_every_steps, job.recipe
    drawn_of_text = recipe.family == "decoder" and recipe.sampling.prompts
    if steps > 0 and not clip.sees_pictures and not drawn_of_text:
        raise InputError(f"training.sample_every_steps is {steps}, but the CLIP has no image tower to see the data's "
                         "pictures with; set it to 0, or give the whole CLIP with --clip")  # fmt: skip


def _check_covariance(job: TrainJob, covariance: Tensor) -> None:
    """Raises InputError where embeddings vary along fewer directions than are to be predicted; weights to begin with
    bring theirs."""
    if isinstance(job.recipe.model, ArPriorModelConfig) and job.init_from is None:
        shape = job.recipe.model.network
        codes = EmbedCodes(shape.embed_dim, shape.num_dims, shape.num_buckets)
        codes.fit(torch.zeros(shape.embed_dim), covariance)


def _needs_covariance(job: TrainJob) -> bool:
    match job.recipe.model:
        case PriorModelConfig() as model:
            return model.whiten_error
        case DecoderModelConfig() as model:
            return model.whiten_image_embed
        case ArPriorModelConfig():
            return True
        case _:
            return False
