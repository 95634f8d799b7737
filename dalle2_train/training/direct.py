"""Train the direct baseline: pixels from captions by their squared error, with neither embeddings nor noise.

Legend: B batch, H W picture.
"""

from dataclasses import dataclass

import torch.nn.functional as F

from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.networks.direct import Direct, DirectConfig
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.denoising import to_signal
from dalle2_train.training.protocols import Loss


@dataclass(frozen=True)
class DirectModelConfig:
    """The direct baseline."""

    network: DirectConfig


class DirectModule(UnclipModule):
    """One update of the direct baseline, on the pictures and tokenised captions that CLIP learns from."""

    kind = "direct"
    network: Direct

    def __init__(
        self,
        network: Direct,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        super().__init__(network, training, optimizer, parallel)

    def compute_loss(self, batch: ClipBatch, step: int) -> Loss:
        image = to_signal(batch.image, self.weights_dtype)  # (B, 3, H, W)
        prediction = self.network(batch.token_ids, batch.text_mask)  # (B, 3, H, W)
        return Loss(F.mse_loss(prediction.to(image), image))
