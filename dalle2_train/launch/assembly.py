"""From a job to what `fit` is handed: the family's module, its stream of data, its pictures and its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from dalle2_train import seeding, storage
from dalle2_train.checkpoints import ClipReference, DataReference, ModelManifest
from dalle2_train.checkpoints.exchange import together
from dalle2_train.config import to_dict
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.data.faults import OnFault
from dalle2_train.data.stream.batches import BatchType, Tokenize
from dalle2_train.data.stream.stream import Stream
from dalle2_train.data.stream.summary import summarize
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import absolute_source
from dalle2_train.launch.job import TrainJob, clip_source, find_embeddings, open_clip
from dalle2_train.launch.modules import build_module
from dalle2_train.launch.pictures import build_sampler
from dalle2_train.launch.preparation import prepare
from dalle2_train.launch.words import Words, degradation_of, words_of
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.protocols import Sampler


@dataclass(frozen=True)
class Assembly:
    """A training ready to run on this rank."""

    job: TrainJob
    module: UnclipModule
    manifest: ModelManifest
    sampler: Sampler | None
    batch_type: BatchType
    tokenize: Tokenize | None

    def open_stream(self, order: Mapping[str, Any] | None, on_fault: OnFault) -> Stream:
        """This rank's part of the data, from where `order` left it."""
        recipe = self.job.recipe
        return Stream(
            self.job.data,
            recipe.data,
            seed=recipe.training.seed,
            global_batch_size=recipe.training.global_batch_size,
            batch_type=self.batch_type,
            rank=dist.get_rank(),
            world_size=dist.get_world_size(),
            tokenize=self.tokenize,
            embeddings=self.job.embeddings,
            degradation=degradation_of(recipe.model),
            state=order,
            on_fault=on_fault,
        )


class _Parts(NamedTuple):
    """What the files that a job names say."""

    data_digest: str
    embeddings: Embeddings | None
    clip: ClipEncoder | None
    module: UnclipModule
    words: Words


def assemble(job: TrainJob) -> Assembly:
    """Build everything on this rank; every rank calls it, and builds the same weights. What one rank's machine does not
    have is told on all."""
    parts = together(lambda: _read(job))
    init_from = prepare(job, parts.module, parts.embeddings, parts.words)
    manifest = _manifest(job, parts, init_from)
    draws = job.recipe.training.sample_every_steps > 0
    sampler = together(lambda: build_sampler(job, parts.module, parts.clip) if draws else None)
    return Assembly(job, parts.module, manifest, sampler, *parts.words)


def _read(job: TrainJob) -> _Parts:
    data = summarize(job.data)
    embeddings = find_embeddings(job) if job.needs_embeddings else None
    info = embeddings.info if embeddings is not None else None
    clip = open_clip(job, info) if job.needs_clip else None
    # The global generator is forked: whoever calls this in their own process keeps their draws.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.key(job.recipe.training.seed, "weights"))
        module = build_module(job, clip)
    return _Parts(data.digest, embeddings, clip, module, words_of(job, module, embeddings, clip))


def _manifest(job: TrainJob, parts: _Parts, init_from: str | None) -> ModelManifest:
    info = parts.embeddings.info if parts.embeddings is not None else None
    clip = None
    if parts.clip is not None:
        clip = ClipReference(absolute_source(clip_source(job, info)), parts.clip.fingerprint)
    return ModelManifest(
        kind=job.recipe.family,
        config=to_dict(job.recipe.model),
        recipe=to_dict(job.recipe),
        profile=job.recipe.profile,
        clip=clip,
        data=DataReference(storage.absolute(job.data), parts.data_digest),
        image_embed_norm=info.norm if info is not None else None,
        init_from=init_from,
    )
