"""What a family's batches hold, and how captions become their tokens."""

from functools import partial
from typing import Any

from dalle2_train.data.embeddings.merged import Embeddings
from dalle2_train.data.samples.degradation import Degradation
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
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.tokenizer import tokenize
from dalle2_train.launch.job import TrainJob
from dalle2_train.training.ar_prior import ArPriorModule
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.clip import ClipModule
from dalle2_train.training.decoder import DecoderModule
from dalle2_train.training.direct import DirectModule
from dalle2_train.training.prior import PriorModule
from dalle2_train.training.texts import caption_reader, encode_beside_batches
from dalle2_train.training.upsampler import UpsamplerModelConfig

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


def words_of(
    job: TrainJob, module: UnclipModule, embeddings: Embeddings | None, clip: ClipEncoder | None
) -> Words:
    """(what a batch holds, how captions become tokens where it holds some)."""
    family = job.recipe.family
    if degradation_of(job.recipe.model) is not None:
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
    # Also for a text encoder of its own, beside whose tokens stored text embeddings might be of another caption
    # (data.captions).
    module.encode_text = encode_beside_batches(reader)
    return _TOKEN_BATCH_TYPES[family], reader.tokenize


def degradation_of(model: Any) -> Degradation | None:
    """What the data does to small pictures, where an upsampler's recipe has it done there."""
    return model.degradation_in_data if isinstance(model, UpsamplerModelConfig) else None
