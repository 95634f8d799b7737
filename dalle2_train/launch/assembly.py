"""From a job to what `fit` is handed: the family's module, its stream of data, its pictures and its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dalle2_train import seeding, storage
from dalle2_train.checkpoints import ClipReference, DataReference, ModelManifest
from dalle2_train.config import to_dict
from dalle2_train.data.faults import OnFault
from dalle2_train.data.stream.batches import BatchType, Tokenize
from dalle2_train.data.stream.stream import Stream
from dalle2_train.data.stream.summary import summarize
from dalle2_train.encoders.loading import absolute_source
from dalle2_train.launch.job import TrainJob, clip_source, find_embeddings, open_clip
from dalle2_train.launch.modules import build_module
from dalle2_train.launch.pictures import build_sampler
from dalle2_train.launch.preparation import prepare
from dalle2_train.launch.words import degradation_of, words_of
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


def assemble(job: TrainJob) -> Assembly:
    """Build everything on this rank; every rank builds the same weights."""
    data = summarize(job.data)
    embeddings = find_embeddings(job) if job.needs_embeddings else None
    info = embeddings.info if embeddings is not None else None
    clip = open_clip(job, info) if job.needs_clip else None
    # The global generator is forked: whoever calls this in their own process keeps their draws.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeding.key(job.recipe.training.seed, "weights"))
        module = build_module(job, clip)
    words = words_of(job, module, embeddings, clip)
    init_from = prepare(job, module, embeddings, words)
    reference = None
    if clip is not None:
        reference = ClipReference(absolute_source(clip_source(job, info)), clip.fingerprint)
    manifest = ModelManifest(
        kind=job.recipe.family,
        config=to_dict(job.recipe.model),
        recipe=to_dict(job.recipe),
        profile=job.recipe.profile,
        clip=reference,
        data=DataReference(storage.absolute(job.data), data.digest),
        image_embed_norm=info.norm if info is not None else None,
        init_from=init_from,
    )
    sampler = build_sampler(job, module, clip) if job.recipe.training.sample_every_steps > 0 else None
    return Assembly(job, module, manifest, sampler, *words)
