"""Train CLIP, whose embeddings everything else is built on.

Legend: B batch, L context length, S image size.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from dalle2_train.data.stream.batches import ClipBatch
from dalle2_train.encoders.clip import ClipConfig, save_clip_companions
from dalle2_train.encoders.pixels import to_pixel_values
from dalle2_train.encoders.trainable import ClipForTraining, to_clip_state
from dalle2_train.parallel.shard import ParallelConfig, local
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.contrastive import contrastive_loss
from dalle2_train.training.protocols import Loss

MAX_LOGIT_SCALE = math.log(100)  # Radford et al. 2021, §2.5


@dataclass(frozen=True)
class ClipModelConfig:
    """The CLIP."""

    encoder: ClipConfig


class ClipModule(UnclipModule):
    """One update of CLIP; the released model is an ordinary Hugging Face folder."""

    kind = "clip"
    splits_batches = False
    network: ClipForTraining

    def __init__(
        self,
        clip: CLIPModel,
        tokenizer: CLIPTokenizer,
        config: ClipModelConfig,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        super().__init__(ClipForTraining(clip), training, optimizer, parallel)
        self.clip_config, self.tokenizer = clip.config, tokenizer
        self.image_size = config.encoder.image_size

    def compute_loss(self, batch: ClipBatch, step: int) -> Loss:
        pixel_values = to_pixel_values(batch.image, self.image_size)  # (B, 3, S, S)
        output = self.network(pixel_values.to(self.weights_dtype), batch.token_ids)
        found = contrastive_loss(*output)
        return Loss(
            found.loss, {"accuracy": found.accuracy, "inverse_temperature": output.scale.detach().mean()}
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = super().configure_optimizers()
        optimizer.register_step_post_hook(lambda *_: self._clamp_logit_scale())
        return optimizer

    def write_model(self, weights: dict[str, Tensor], folder: Path) -> None:
        save_clip_companions(self.clip_config, self.tokenizer, folder)
        state = {name: tensor.contiguous() for name, tensor in to_clip_state(weights).items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    @torch.no_grad()
    def _clamp_logit_scale(self) -> None:
        local(self.network.logit_scale).clamp_(max=MAX_LOGIT_SCALE)
