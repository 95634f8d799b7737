"""From a job to what `fit` is handed: the family's module, its stream of data, its pictures and its manifest."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from dalle2_train import seeding, storage
from dalle2_train.checkpoints import ClipReference, DataReference, ModelManifest, model_digest
from dalle2_train.config import to_dict
from dalle2_train.data.config import DataConfig
from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.data.faults import OnFault
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.samples.pipeline import pipeline
from dalle2_train.data.shards.members import captions
from dalle2_train.data.stream.batches import (
    BatchType,
    ClipBatch,
    DecoderBatch,
    DecoderTokenBatch,
    DegradedBatch,
    PriorBatch,
    PriorTokenBatch,
    Tokenize,
    UpsamplerBatch,
)
from dalle2_train.data.stream.mixture import sets_of
from dalle2_train.data.stream.stream import Stream
from dalle2_train.data.stream.summary import summarize
from dalle2_train.encoders.clip import build_clip
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import absolute_source
from dalle2_train.encoders.tokenizer import tokenize, train_tokenizer
from dalle2_train.launch.first_batches import first_batches
from dalle2_train.launch.initial import check_initial, initial_digest, open_initial, place_of
from dalle2_train.launch.initial_clip import initial_clip
from dalle2_train.launch.job import TrainJob, clip_source, find_embeddings, open_clip
from dalle2_train.launch.pictures import build_sampler
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.direct import Direct
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler
from dalle2_train.training.ar_prior import ArPriorModelConfig, ArPriorModule, use_components, use_dots
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.clip import ClipModelConfig, ClipModule
from dalle2_train.training.decoder import (
    DecoderModelConfig,
    DecoderModule,
    amplify_image_embed,
    whiten_image_embed,
)
from dalle2_train.training.direct import DirectModelConfig, DirectModule
from dalle2_train.training.prior import (
    PriorModelConfig,
    PriorModule,
    statistics,
    use_statistics,
    whiten_error,
)
from dalle2_train.training.protocols import Sampler
from dalle2_train.training.texts import caption_reader
from dalle2_train.training.upsampler import UpsamplerModelConfig, UpsamplerModule

# A vocabulary of a few thousand pairs is settled long before.
_MAX_TOKENIZER_CAPTIONS = 200_000
# Quantiles of so many similarities are within two hundredths of the whole set's.
_NUM_DOTS = 4096

_BATCH_TYPES: dict[str, BatchType] = {
    "clip": ClipBatch,
    "prior": PriorBatch,
    "ar_prior": PriorBatch,
    "decoder": DecoderBatch,
    "upsampler": UpsamplerBatch,
    "direct": ClipBatch,
}
_TOKEN_BATCH_TYPES: dict[str, BatchType] = {
    "prior": PriorTokenBatch,
    "ar_prior": PriorTokenBatch,
    "decoder": DecoderTokenBatch,
}
"""Where the text encodings are not stored, for they are large, or the network has a text encoder of its own."""

Words = tuple[BatchType, Tokenize | None]


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
            degradation=_degradation(recipe.model),
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
        module = _build_module(job, clip)
    words = _words(job, module, embeddings, clip)
    init_from = _prepare(job, module, embeddings, clip, words)
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


def _prepare(
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


def _words(
    job: TrainJob, module: UnclipModule, embeddings: Embeddings | None, clip: ClipEncoder | None
) -> Words:
    """(what a batch holds, how captions become tokens where it holds some)."""
    family = job.recipe.family
    if _degradation(job.recipe.model) is not None:
        return DegradedBatch, None
    if isinstance(module, ClipModule):
        return _BATCH_TYPES[family], partial(tokenize, module.tokenizer)
    if isinstance(module, DirectModule):
        assert clip is not None
        return _BATCH_TYPES[family], partial(tokenize, clip.tokenizer)
    if embeddings is None:
        return _BATCH_TYPES[family], None
    assert clip is not None and isinstance(module, PriorModule | ArPriorModule | DecoderModule)
    reader = caption_reader(clip, module.network)
    if embeddings.has_text_encodings and reader.own_length is None:
        return _BATCH_TYPES[family], None
    module.encode_text = reader.encode
    return _TOKEN_BATCH_TYPES[family], reader.tokenize


def _degradation(model: Any) -> Degradation | None:
    return model.degradation_in_data if isinstance(model, UpsamplerModelConfig) else None


def _build_module(job: TrainJob, clip: ClipEncoder | None) -> UnclipModule:
    recipe = job.recipe
    settings = (recipe.training, recipe.optimizer, recipe.parallel)
    match recipe.model:
        case ClipModelConfig() as model:
            trained, tokenizer = _clip_to_train(job, model)
            return ClipModule(trained, tokenizer, model, *settings)
        case PriorModelConfig() as model:
            assert clip is not None
            network = Prior(model.network)
            return PriorModule(network, model, caption_reader(clip, network).null_text(), *settings)
        case ArPriorModelConfig() as model:
            assert clip is not None
            network = ArPrior(model.network)
            return ArPriorModule(network, model, caption_reader(clip, network).null_text(), *settings)
        case DecoderModelConfig() as model:
            assert clip is not None
            network = Decoder(model.network)
            amplify_image_embed(network, model.image_embed_gain)
            return DecoderModule(network, model, caption_reader(clip, network).null_text(), *settings)
        case UpsamplerModelConfig() as model:
            return UpsamplerModule(Upsampler(model.network), model, *settings)
        case DirectModelConfig() as model:
            return DirectModule(Direct(model.network), *settings)


def _covariance(embeddings: Embeddings | None) -> Tensor:
    """(E, E) float64."""
    assert embeddings is not None
    return torch.from_numpy(embeddings.covariance())


def _clip_to_train(job: TrainJob, model: ClipModelConfig) -> tuple[CLIPModel, CLIPTokenizer]:
    """The CLIP to begin with and its tokenizer, or a new one for a tokenizer trained on the captions."""
    if job.init_from is not None:
        found = initial_clip(job.init_from, place_of(job.init_from, "clip"), model.encoder)
        assert isinstance(found.model, CLIPModel)
        return found.model.requires_grad_(True).train(), found.tokenizer
    tokenizer = _tokenizer(job, model)
    return build_clip(model.encoder, tokenizer), tokenizer


def _tokenizer(job: TrainJob, model: ClipModelConfig) -> CLIPTokenizer:
    """Trained on the captions."""
    sets = sets_of(job.data)
    parts = (islice(_captions(uri, job.recipe.data), _MAX_TOKENIZER_CAPTIONS // len(sets)) for uri in sets)
    texts = chain.from_iterable(parts)
    return train_tokenizer(texts, model.encoder.vocab_size, model.encoder.context_length)


def _captions(uri: str, config: DataConfig) -> Iterator[str]:
    """Captions of the whole samples; damaged ones are the stream's to report."""
    for raw in pipeline(uri, config.split):
        try:
            yield from captions(raw, config.captions)
        except ValueError:
            continue
