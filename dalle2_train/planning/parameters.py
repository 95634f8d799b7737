"""How many numbers a recipe's network learns, counted without making any of them."""

from typing import NamedTuple

import torch
from torch import nn
from transformers import CLIPModel, CLIPTokenizer

from dalle2_train.encoders.clip import hf_config
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.direct import Direct
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler
from dalle2_train.recipe import ModelConfig
from dalle2_train.training.ar_prior import ArPriorModelConfig
from dalle2_train.training.clip import ClipModelConfig
from dalle2_train.training.decoder import DecoderModelConfig
from dalle2_train.training.direct import DirectModelConfig
from dalle2_train.training.prior import PriorModelConfig
from dalle2_train.training.upsampler import UpsamplerModelConfig


class Parameters(NamedTuple):
    """Counts of a network's parameters."""

    total: int
    text_encoder: int
    """Of them, those of the text encoder that is trained with it; 0: there is none."""

    def __str__(self) -> str:
        without = (
            f", without the text encoder {self.total - self.text_encoder:,}" if self.text_encoder else ""
        )
        return f"{self.total:,}{without}"


def count_parameters(model: ModelConfig) -> Parameters:
    """Those of the network that `model` trains."""
    network = build_on_meta(model)
    text_encoder = getattr(network, "text_encoder", None)
    return Parameters(_count(network), 0 if text_encoder is None else _count(text_encoder))


def build_on_meta(model: ModelConfig) -> nn.Module:
    """The network with shapes and without values."""
    with torch.device("meta"):
        match model:
            case ClipModelConfig():
                # Which tokens are special does not shape it.
                return CLIPModel(hf_config(model.encoder, CLIPTokenizer()))
            case PriorModelConfig():
                return Prior(model.network)
            case ArPriorModelConfig():
                return ArPrior(model.network)
            case DecoderModelConfig():
                return Decoder(model.network)
            case UpsamplerModelConfig():
                return Upsampler(model.network)
            case DirectModelConfig():
                return Direct(model.network)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
