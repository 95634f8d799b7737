"""Train the diffusion prior: CLIP image embeddings from captions (§2.2 of unCLIP).

Legend: B batch, L text length, E embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dalle2_train.data.stream.batches import PriorBatch, PriorTokenBatch
from dalle2_train.diffusion.objective import ObjectiveConfig, check_objective
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders.captions import Text
from dalle2_train.errors import InputError
from dalle2_train.networks.prior import Prior, PriorConfig
from dalle2_train.networks.whitening import zca
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.denoising import DenoisingModule, check_probability, drop_text
from dalle2_train.training.draws import keep
from dalle2_train.training.protocols import Loss
from dalle2_train.training.texts import EncodeText, text_of

# Unit vectors of 1024 dimensions, times the paper's 17.2, have coordinates of 0.54.
MIN_SCALED = 0.25


@dataclass(frozen=True)
class PriorModelConfig:
    """The prior, its diffusion, and how often it learns without text."""

    network: PriorConfig
    schedule: ScheduleConfig = ScheduleConfig()
    objective: ObjectiveConfig = ObjectiveConfig(prediction_type="sample")
    embedding_scale: float | None = None
    """Embeddings are multiplied by it (the paper: 17.2); None: normalised by the set's own mean and standard deviation
    per dimension (Karlo)."""
    condition_dropout: float = 0.1
    """Share of samples whose text is replaced by that of the empty caption."""
    whiten_error: bool = False
    """Weigh every direction of the embedding's error by how little embeddings vary along it (`networks.whitening`,
    `whiten_error`). The best prediction stays the mean of x_0 given x_t and the text, as under any quadratic error;
    but directions of a large variance are no longer all that is learned at first."""

    def __post_init__(self) -> None:
        check_probability("condition_dropout", self.condition_dropout)
        check_objective(self.objective, self.schedule.zero_terminal_snr)
        if self.embedding_scale is not None and self.embedding_scale <= 0:
            raise InputError(f"embedding_scale is {self.embedding_scale}; it must be positive, or null")
        if self.whiten_error and self.objective.prediction_type != "sample":
            raise InputError(
                f"model.whiten_error is true, but objective.prediction_type is {self.objective.prediction_type!r}: "
                "only x_0 has the directions of embeddings; set it to sample"
            )
        if self.objective.learned_variance:
            raise InputError(
                "objective.learned_variance is true; the prior predicts no variance, set it to false"
            )


class PriorModule(DenoisingModule):
    """One update of the prior. `network` carries the embeddings' statistics (`use_statistics`)."""

    kind = "prior"
    network: Prior

    def __init__(
        self,
        network: Prior,
        config: PriorModelConfig,
        null_text: Text,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        """`null_text`: what stands for no text, B=1 (`CaptionReader.null_text`)."""
        super().__init__(network, config.schedule, config.objective, training, optimizer, parallel)
        self.condition_dropout = config.condition_dropout
        self.null_text = null_text
        self.encode_text: EncodeText | None = None  # of batches of tokens
        self.whitens = config.whiten_error
        self.covariance: Tensor | None = None  # (E, E), of embeddings
        self._error_whitening: Tensor | None = None  # (E, E), of normalised embeddings

    def compute_loss(self, batch: PriorBatch | PriorTokenBatch, step: int) -> Loss:
        x_0 = self.network.normalise(batch.image_embed)  # (B, E)
        draws = self.draw(x_0, batch.index, step)
        x_t = add_noise(self.schedule.to(x_0.device), x_0, draws.t, draws.eps)  # (B, E)
        text = text_of(batch, self.encode_text)  # (B, E), (B, L, E) or (B, L), (B, L)
        text = drop_text(
            text, self.null_text, keep(self.seed, "text", step, batch.index, self.condition_dropout)
        )
        prediction = self.network(x_t, draws.t, *text)  # (B, E)
        if self.whitens:
            prediction, x_0 = self._white(prediction), self._white(x_0)
        return self.loss(prediction, x_0, x_t, draws)

    def _white(self, x: Tensor) -> Tensor:
        """(B, E) → (B, E), multiplied in the weights' precision whatever autocast says."""
        if self._error_whitening is None:
            assert self.covariance is not None, "see whiten_error"
            std = self.network.clip_std[0].double().cpu()  # (E,)
            self._error_whitening = zca(self.covariance.to(std) / torch.outer(std, std))
        self._error_whitening = self._error_whitening.to(x.device, self.weights_dtype)
        with torch.autocast(x.device.type, enabled=False):
            return x.to(self.weights_dtype) @ self._error_whitening


def statistics(
    config: PriorModelConfig, mean: Sequence[float], std: Sequence[float]
) -> tuple[Sequence[float], Sequence[float]]:
    """(mean, standard deviation) to normalise by: an embedded set's (E,), or those that its scale stands for.

    Raises InputError for a scale that leaves coordinates far from 1, where the schedule's noise and the sampler's range
    would be wrong for them.
    """
    scale = config.embedding_scale
    if scale is None:
        return mean, std
    size = math.sqrt(sum(m * m + s * s for m, s in zip(mean, std, strict=True)) / len(mean))
    if not MIN_SCALED <= scale * size <= 1 / MIN_SCALED:
        raise InputError(
            f"model.embedding_scale is {scale}, but coordinates of these embeddings are {size:.3g} large, which makes "
            f"{scale * size:.3g}; it should be about 1: set it to {1 / size:.3g}, or to null for the set's statistics"
        )
    return [0.0] * len(mean), [1 / scale] * len(mean)


@torch.no_grad()
def use_statistics(network: Prior, mean: Sequence[float], std: Sequence[float]) -> None:
    """Normalise by a mean and standard deviation per dimension (E,).

    Raises InputError where their length is not E or a dimension does not vary.
    """
    embed_dim = network.config.embed_dim
    if not len(mean) == len(std) == embed_dim:
        raise InputError(
            f"the embeddings have {len(mean)} dimensions, network.embed_dim is {embed_dim}; make them equal"
        )
    if min(std) <= 0:
        raise InputError(
            f"dimension {list(std).index(min(std))} of the embeddings is constant; embed with a trained CLIP"
        )
    network.clip_mean.copy_(torch.tensor(mean, dtype=torch.float64)[None])  # (1, E)
    network.clip_std.copy_(torch.tensor(std, dtype=torch.float64)[None])  # (1, E)


def whiten_error(module: PriorModule, covariance: Tensor) -> None:
    """Measure the module's error whitened by an embedded set's covariance (E, E).

    The statistics are those that the network has at its first loss: of weights to begin with, or of a checkpoint.
    """
    module.covariance = covariance
