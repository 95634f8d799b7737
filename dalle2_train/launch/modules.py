"""The module of each family, built from its recipe."""

from collections.abc import Iterator
from itertools import chain, islice

from transformers import CLIPModel, CLIPTokenizer

from dalle2_train.data.config import DataConfig
from dalle2_train.data.samples.pipeline import pipeline
from dalle2_train.data.shards.members import captions
from dalle2_train.data.stream.mixture import sets_of
from dalle2_train.encoders.clip import build_clip
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.tokenizer import train_tokenizer
from dalle2_train.launch.initial import place_of
from dalle2_train.launch.initial_clip import initial_clip
from dalle2_train.launch.job import TrainJob
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.direct import Direct
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler
from dalle2_train.training.ar_prior import ArPriorModelConfig, ArPriorModule
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.clip import ClipModelConfig, ClipModule
from dalle2_train.training.decoder import DecoderModelConfig, DecoderModule, amplify_image_embed
from dalle2_train.training.direct import DirectModelConfig, DirectModule
from dalle2_train.training.prior import PriorModelConfig, PriorModule
from dalle2_train.training.texts import caption_reader
from dalle2_train.training.upsampler import UpsamplerModelConfig, UpsamplerModule

# A vocabulary of a few thousand pairs is settled long before.
_MAX_TOKENIZER_CAPTIONS = 200_000


def build_module(job: TrainJob, clip: ClipEncoder | None) -> UnclipModule:
    """With random weights, but for a CLIP that is trained on. clip: the frozen one, where the family has one."""
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
