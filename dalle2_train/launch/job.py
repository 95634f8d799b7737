"""A training as it was asked for, and whether it can be done at all."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dalle2_train import storage
from dalle2_train.checkpoints.layout import checkpoint_uri, committed_steps
from dalle2_train.checkpoints.manifest import ModelManifest, read_manifest
from dalle2_train.config import to_dict
from dalle2_train.data.embeddings.layout import EmbeddingInfo
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.data.shards.freshness import check_fresh
from dalle2_train.data.stream.mixture import mixture_of
from dalle2_train.data.stream.summary import summarize, summarize_embeddings
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import absolute_source, load_clip
from dalle2_train.errors import InputError
from dalle2_train.launch.initial import initial_digest
from dalle2_train.networks.embed_codes import EmbedCodes
from dalle2_train.networks.text_encoder import TextEncoderConfig
from dalle2_train.parallel.shard import mesh_sizes
from dalle2_train.recipe import Recipe, build_recipe
from dalle2_train.training.ar_prior import ArPriorModelConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.direct import DirectModelConfig
from dalle2_train.training.prior import PriorModelConfig, statistics

_UNDECISIVE = {
    "sampling",
    "parallel",
    "clip",
    "embeddings",
    "data.cache_megabytes",
    "data.max_faulty",
    "data.cache_folder",
    "data.cache_gigabytes",
    "data.num_workers",
    "data.prefetch_batches",
    *(
        f"training.{name}"
        for name in ("num_steps", "checkpoint_every_steps", "keep_checkpoints", "log_every_steps",
                     "sample_every_steps", "max_nonfinite_steps", "max_failures", "num_threads", "micro_batch_size",
                     "channels_last", "compile")
    ),
}  # fmt: skip
"""Keys of a recipe that say how and how far a run goes, not what it learns."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TrainJob:
    """What to train, on what, and where it is kept."""

    recipe: Recipe
    data: str
    """Folder or pattern of shards, or, for a prior, of embeddings alone; or the YAML file of a mixture."""
    storage: str
    """Folder of all runs."""
    name: str
    """The run's folder in it; the same name goes on with the same run."""
    clip: str | None = None
    """The frozen CLIP; by default the one that made the embeddings."""
    embeddings: str | None = None
    """Folder of embeddings; by default those that `data` holds."""
    tracking: str | None = None
    experiment: str = "dalle2-train"
    init_from: str | None = None
    """A model whose weights to begin with."""

    @property
    def run_uri(self) -> str:
        return storage.join(self.storage, self.name)

    @property
    def needs_embeddings(self) -> bool:
        return isinstance(self.recipe.model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)

    @property
    def needs_clip(self) -> bool:
        return self.needs_embeddings or isinstance(self.recipe.model, DirectModelConfig)

    def absolute(self) -> "TrainJob":
        """The same job for a process that works in another folder, as Ray's workers do."""
        return replace(
            self,
            data=storage.absolute(self.data),
            storage=storage.absolute(self.storage),
            clip=absolute_source(self.clip) if self.clip else None,
            embeddings=storage.absolute(self.embeddings) if self.embeddings else None,
            init_from=absolute_source(self.init_from) if self.init_from else None,
        )


def check_begun(job: TrainJob, found: ModelManifest) -> None:
    """Raises InputError where the run's model or checkpoint `found` learned otherwise than `job` asks."""
    # Built anew, an older recipe has the settings that came since.
    asked, done = _decisive(to_dict(job.recipe)), _decisive(to_dict(build_recipe(found.recipe)))
    others = [f"{key} {done.get(key)!r}, not {asked[key]!r}" for key in asked if asked[key] != done.get(key)]
    if (
        found.data is not None
        and storage.exists(job.data)
        and summarize(job.data).digest != found.data.digest
    ):
        others.append(f"the shards {found.data.uri}, or what they held then")
    if job.init_from is not None and initial_digest(job.init_from, job.recipe.family) != found.init_from:
        others.append("other weights to begin with")
    if others:
        told = "; ".join(others[:3]) + (f"; and {len(others) - 3} more" if len(others) > 3 else "")
        raise InputError(f"{job.run_uri} at step {found.step} has learned with {told}; give another --name (in a "
                         "pipeline another --folder), or what it began with")  # fmt: skip


def _newest_checkpoint(job: TrainJob) -> ModelManifest | None:
    """None also where it cannot be read: going on looks for an older one, and says so."""
    for step in reversed(committed_steps(job.run_uri)):
        with suppress(InputError):
            return read_manifest(checkpoint_uri(job.run_uri, step))
    return None


def _decisive(recipe: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted key → value of all in a recipe that decides what is learned."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{path}{key}"
        if name in _UNDECISIVE:
            continue
        found |= _decisive(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def check(job: TrainJob, workers: int) -> None:
    """Raises InputError for whatever would stop the training later: names, sizes, data, embeddings, CLIP, storage."""
    if not _NAME.fullmatch(job.name):
        raise InputError(
            f"--name {job.name!r}: use letters, digits, '.', '_' and '-', beginning with a letter or digit"
        )
    sets = [uri for source in mixture_of(job.data).sources for uri in (source.uri, source.embeddings)]
    if workers > 0 and any(
        uri and uri.startswith("memory:") for uri in (job.storage, job.data, job.embeddings, *sets)
    ):
        raise InputError(
            "memory: lives in one process and cannot be shared by workers; use a folder, or --workers 0"
        )
    num_ranks, recipe = max(1, workers), job.recipe
    if recipe.data.num_lanes % num_ranks:
        raise InputError(f"--workers {workers} does not divide data.num_lanes {recipe.data.num_lanes}; "
                         "choose a divisor of it")  # fmt: skip
    mesh_sizes(recipe.parallel, num_ranks, num_ranks)
    data = summarize(job.data)
    for uri in data.sets:
        check_fresh(uri)
    if not data.splits.get(recipe.data.split):
        raise InputError(f"{job.data}: no sample is in the split {recipe.data.split!r} (there are {data.splits}); "
                         "set data.split")  # fmt: skip
    if not data.has_pictures and recipe.family not in ("prior", "ar_prior"):
        raise InputError(f"{job.data}: holds embeddings and no pictures, which a {recipe.family} learns from; give the "
                         "shards with the pictures as --data, and these as --embeddings")  # fmt: skip
    if job.needs_embeddings:
        embeddings = find_embeddings(job)
        _check_sampling(job, open_clip(job, embeddings.info))
        if isinstance(recipe.model, PriorModelConfig):
            statistics(recipe.model, embeddings.info.mean, embeddings.info.std)
        if _needs_covariance(job):
            _check_covariance(job, torch.from_numpy(embeddings.covariance()))
    elif job.needs_clip:
        open_clip(job, None)
    if (begun := _newest_checkpoint(job)) is not None:
        check_begun(job, begun)
        if begun.step > recipe.training.num_steps:
            raise InputError(f"{job.run_uri} has done {begun.step} steps, but training.num_steps is "
                             f"{recipe.training.num_steps}; give at least {begun.step}, or another --name")  # fmt: skip
    storage.check_could_write(job.storage)


def find_embeddings(job: TrainJob) -> Embeddings:
    """Those that the job names. Raises InputError where there are none, or where they do not fit."""
    found = summarize_embeddings(job.data, job.embeddings)
    assert isinstance(job.recipe.model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)
    wanted = job.recipe.model.network.embed_dim
    if found.info.embed_dim != wanted:
        raise InputError(f"{job.embeddings or job.data}: its embeddings have {found.info.embed_dim} dimensions, but "
                         f"model.network.embed_dim is {wanted}; make them equal")  # fmt: skip
    return found


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


def open_clip(job: TrainJob, info: EmbeddingInfo | None) -> ClipEncoder:
    """The CLIP that made the embeddings, or, where the model reads none, the one whose tokens it reads.

    Raises InputError for another one, for none, or for a context or a vocabulary that does not fit.
    """
    clip = load_clip(clip_source(job, info), info.clip_fingerprint if info else None)
    model = job.recipe.model
    reads_text = isinstance(model, PriorModelConfig | ArPriorModelConfig | DecoderModelConfig)
    own = model.network.text_encoder if reads_text else None
    of_states = isinstance(model, PriorModelConfig | ArPriorModelConfig)
    if own is not None:
        _check_text_encoder(own, clip, may_be_longer=True)
    elif of_states and model.network.num_text_tokens != clip.context_length:
        raise InputError(f"model.network.num_text_tokens is {model.network.num_text_tokens}, but the CLIP reads "
                         f"{clip.context_length} tokens; make them equal")  # fmt: skip
    if isinstance(model, DirectModelConfig):
        _check_text_encoder(model.network.text_encoder, clip, may_be_longer=False)
    return clip


def clip_source(job: TrainJob, info: EmbeddingInfo | None) -> str:
    """Where the job's CLIP is: as it says, or as its embeddings do. InputError where neither does."""
    if job.clip is not None:
        return job.clip
    if info is None:
        raise InputError(f"a {job.recipe.family} reads captions as the tokens of a CLIP, and none was named; "
                         "give its folder as --clip")  # fmt: skip
    return info.clip_uri


def _check_text_encoder(config: TextEncoderConfig, clip: ClipEncoder, may_be_longer: bool) -> None:
    """The CLIP's tokenizer makes the tokens; a longer context than CLIP's is cut for CLIP."""
    where, length = "model.network.text_encoder", clip.context_length
    if config.context_length < length or (config.context_length > length and not may_be_longer):
        remedy = "give at least as many" if may_be_longer else "make them equal"
        raise InputError(f"{where}.context_length is {config.context_length}, but the CLIP's tokenizer gives "
                         f"{length} tokens; {remedy}")  # fmt: skip
    if config.vocab_size < len(clip.tokenizer):
        raise InputError(f"{where}.vocab_size is {config.vocab_size}, but the CLIP's tokenizer has "
                         f"{len(clip.tokenizer)}; give at least as many")  # fmt: skip
