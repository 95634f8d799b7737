"""Train the decoder: pictures from CLIP image embeddings and captions (§2.1 of unCLIP).

Legend: B batch, L text length, E embedding, H W picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dalle2_train.data.stream.batches import DecoderBatch, DecoderTokenBatch
from dalle2_train.diffusion.objective import ObjectiveConfig, check_objective
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.networks.decoder import Decoder, DecoderConfig
from dalle2_train.networks.text_projection import plain_state
from dalle2_train.networks.whitening import Whitening, zca
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.denoising import DenoisingModule, check_probability, drop_text, to_signal
from dalle2_train.training.draws import keep
from dalle2_train.training.protocols import Loss
from dalle2_train.training.texts import EncodeText, text_of


@dataclass(frozen=True)
class DecoderModelConfig:
    """The decoder, its diffusion, and how often it learns without a condition; defaults are Karlo's."""

    network: DecoderConfig
    schedule: ScheduleConfig = ScheduleConfig()
    objective: ObjectiveConfig = ObjectiveConfig(prediction_type="epsilon", learned_variance=True)
    text_dropout: float = 0.3
    """Share of samples whose text is replaced by that of the empty caption."""
    image_embed_dropout: float = 0.1
    """Share of samples, drawn independently, whose image embedding is replaced by the learned null."""
    whiten_image_embed: bool = False
    """Learn from all directions of the image embedding at once (`networks.whitening`, `whiten_image_embed`). Released
    weights are those of a decoder that reads plain embeddings. The embeddings of a CLIP that was trained for minutes
    vary along five directions almost alone, and which picture it is stands in the others."""
    image_embed_gain: float = 1.0
    """Factor on the random first weights of the two layers that read the image embedding; weights to begin with stay as
    they are. At 1 the layers' outputs hardly leave the linear part of the SiLU behind them, which a long training
    mends by itself and a short one does not (docs/decisions/0002)."""

    def __post_init__(self) -> None:
        check_probability("text_dropout", self.text_dropout)
        check_objective(self.objective, self.schedule.zero_terminal_snr)
        check_probability("image_embed_dropout", self.image_embed_dropout)
        if self.image_embed_gain <= 0:
            raise InputError(f"image_embed_gain is {self.image_embed_gain}; it must be positive, 1 for none")


class DecoderModule(DenoisingModule):
    """One update of the decoder. Pictures are never mirrored: a hand that waves to the left is another emoji."""

    kind = "decoder"
    network: Decoder

    def __init__(
        self,
        network: Decoder,
        config: DecoderModelConfig,
        null_text: Text,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        """`null_text`: what stands for no text, B=1 (`CaptionReader.null_text`)."""
        super().__init__(network, config.schedule, config.objective, training, optimizer, parallel)
        self.text_dropout, self.image_embed_dropout = config.text_dropout, config.image_embed_dropout
        self.whitens = config.whiten_image_embed
        self.null_text = null_text
        self.encode_text: EncodeText | None = None  # of batches of tokens

    def write_model(self, weights: dict[str, Tensor], folder: Path) -> None:
        super().write_model(plain_state(weights), folder)

    def compute_loss(self, batch: DecoderBatch | DecoderTokenBatch, step: int) -> Loss:
        assert self.whitens == (self.network.text_proj.whitening is not None), "see whiten_image_embed"
        x_0 = to_signal(batch.image, self.weights_dtype)  # (B, 3, H, W)
        draws = self.draw(x_0, batch.index, step)
        x_t = add_noise(self.schedule.to(x_0.device), x_0, draws.t, draws.eps)  # (B, 3, H, W)
        text = text_of(batch, self.encode_text)  # (B, E), (B, L, E) or (B, L), (B, L)
        text = drop_text(text, self.null_text, keep(self.seed, "text", step, batch.index, self.text_dropout))
        # The network puts its own learned null in: outside of its forward a sharded parameter is not whole.
        keep_image = keep(self.seed, "image_embed", step, batch.index, self.image_embed_dropout)  # (B,)
        prediction = self.network(x_t, draws.t, batch.image_embed, *text, keep_image)  # (B, 6, H, W)
        if not self.objective.learned_variance:
            prediction = prediction.chunk(2, dim=1)[0]  # (B, 3, H, W)
        return self.loss(prediction, x_0, x_t, draws)


def whiten_image_embed(network: Decoder, mean: Sequence[float], covariance: Tensor) -> None:
    """Read image embeddings whitened by an embedded set's mean (E,) and covariance (E, E)."""
    like = next(network.parameters())
    matrix = zca(covariance).to(like)  # (E, E)
    network.text_proj.whitening = Whitening(torch.tensor(mean, dtype=torch.float64).to(like), matrix)


@torch.no_grad()
def amplify_image_embed(network: Decoder, gain: float) -> None:
    """Multiply the weights of the layers that read the image embedding, before any training."""
    for layer in network.text_proj.image_embed_readers():
        layer.weight.mul_(gain)
