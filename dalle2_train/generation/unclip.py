"""What an unCLIP is made of, ready to sample from: its CLIP and its trained parts."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from dalle2_train.checkpoints import ModelManifest
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import NoiseSchedule, ScheduleConfig
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler

UPSAMPLERS = ("upsampler", "second_upsampler")
"""The upsamplers' names, by size: in `GenerationConfig`, as stages and as folders of a release."""

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class TrainedPart(Generic[Network]):
    """One trained model, ready to sample from."""

    manifest: ModelManifest
    network: Network
    """With EMA weights, in eval mode, without gradients."""


@dataclass(frozen=True)
class Part(TrainedPart[Network]):
    """One trained diffusion model."""

    schedule_config: ScheduleConfig
    schedule: NoiseSchedule
    objective: ObjectiveConfig
    last: Network | None = None
    """Of an upsampler, the network of its last step where that is another one, as in Karlo."""


@dataclass(frozen=True)
class ArPriorPart(TrainedPart[ArPrior]):
    """One trained autoregressive prior."""


@dataclass(frozen=True)
class Unclip:
    """All that turns text into pictures. Without upsamplers the pictures are the decoder's."""

    clip: ClipEncoder
    clip_uri: str
    prior: Part[Prior] | ArPriorPart | None
    """None: the decoder reads the caption's own embedding, or none (`DecoderStageConfig.image_embed`)."""
    decoder: Part[Decoder]
    upsamplers: tuple[Part[Upsampler], ...]
    """In order of size, each taking up what the one before made; two at most."""

    @property
    def parts(self) -> dict[str, TrainedPart]:
        """Stage → the part, of those that are there, in the order in which they run; the prior's stage is its kind."""
        parts: dict[str, TrainedPart] = {"decoder": self.decoder}
        if self.prior is not None:
            parts = {self.prior.manifest.kind: self.prior, **parts}
        return parts | dict(zip(UPSAMPLERS, self.upsamplers, strict=False))

    @property
    def image_size(self) -> int:
        """Pixels a side of the pictures it makes."""
        if self.upsamplers:
            return self.upsamplers[-1].network.config.high_size
        return self.decoder.network.config.image_size
