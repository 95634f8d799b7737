"""Train an upsampler: large pictures beside small ones, on crops (§2.2 of unCLIP).

Legend: B batch, H picture side, S crop side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dalle2_train.data.pictures.bsr import BsrConfig
from dalle2_train.data.samples.degradation import Degradation
from dalle2_train.data.stream.batches import DegradedBatch, UpsamplerBatch
from dalle2_train.diffusion.objective import ObjectiveConfig, check_objective
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.errors import InputError
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig, enlarge
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.degradation import GaussianBlurConfig, crop, low_res
from dalle2_train.training.denoising import DenoisingModule, to_signal
from dalle2_train.training.draws import keep, offsets
from dalle2_train.training.protocols import Loss


@dataclass(frozen=True)
class UpsamplerModelConfig:
    """The upsampler, its diffusion, and how its small pictures are made."""

    network: UpsamplerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    objective: ObjectiveConfig = ObjectiveConfig(prediction_type="epsilon")
    crop_fraction: float = 0.25
    """Side of the training crop in parts of high_size; sampling is at full size, which convolutions allow."""
    degradation: GaussianBlurConfig | BsrConfig = GaussianBlurConfig()
    """How the small picture is made worse than the decoder's will be: `gaussian_blur`, or `bsr`."""

    def __post_init__(self) -> None:
        check_objective(self.objective, self.schedule.zero_terminal_snr)
        if self.objective.learned_variance:
            raise InputError(
                "objective.learned_variance is true; an upsampler predicts no variance, set it to false"
            )
        self._check_crop()

    @property
    def crop_size(self) -> int:
        """S, pixels."""
        return round(self.crop_fraction * self.network.high_size)

    @property
    def crop_stride(self) -> int:
        """Pixels between corners: where a small pixel is a whole number of large ones they lie on the small picture's
        grid, as enlarging has one phase at full size too; elsewhere it has many there, and corners lie anywhere."""
        high, low = self.network.high_size, self.network.low_size
        return high // low if high % low == 0 else 1

    @property
    def degradation_in_data(self) -> Degradation | None:
        """What makes the small pictures where samples are decoded; None: the training step does."""
        if isinstance(self.degradation, BsrConfig):
            return Degradation(self.network.low_size, self.degradation)
        return None

    def _check_crop(self) -> None:
        unit = 2 ** (len(self.network.channels) - 1)
        if not 0 < self.crop_fraction <= 1 or self.crop_size % unit or self.crop_size == 0:
            raise InputError(
                f"crop_fraction is {self.crop_fraction}, a side of {self.crop_fraction * self.network.high_size:g} "
                f"pixels; it must be in (0, 1] and give a multiple of {unit} pixels"
            )


def migrated(model: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `model` as `UpsamplerModelConfig` has them now; the blur's two once had no section."""
    older = {"blur_sigma": "sigma", "blur_probability": "probability"}
    blur = {name: model[old] for old, name in older.items() if old in model}
    kept = {name: value for name, value in model.items() if name not in older}
    return kept | {"degradation": {"kind": "gaussian_blur", **blur}} if blur else kept


class UpsamplerModule(DenoisingModule):
    """One update of an upsampler."""

    kind = "upsampler"
    network: Upsampler

    def __init__(
        self,
        network: Upsampler,
        config: UpsamplerModelConfig,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        super().__init__(network, config.schedule, config.objective, training, optimizer, parallel)
        self.config = config

    def compute_loss(self, batch: UpsamplerBatch | DegradedBatch, step: int) -> Loss:
        config, size = self.config, self.config.crop_size
        image = to_signal(batch.image, self.weights_dtype)  # (B, 3, H, H)
        low_res_image = self._low_res(image, batch, step)  # (B, 3, H, H)
        places = (config.network.high_size - size) // config.crop_stride + 1
        corners = config.crop_stride * offsets(self.seed, "crop", step, batch.index, places)  # (B, 2)
        x_0, low_res_image = crop(image, corners, size), crop(low_res_image, corners, size)  # (B, 3, S, S)
        draws = self.draw(x_0, batch.index, step)
        x_t = add_noise(self.schedule.to(x_0.device), x_0, draws.t, draws.eps)  # (B, 3, S, S)
        return self.loss(self.network(x_t, draws.t, low_res_image), x_0, x_t, draws)

    def _low_res(self, image: Tensor, batch: UpsamplerBatch | DegradedBatch, step: int) -> Tensor:
        """The small pictures, enlarged whole: a crop of them then shows what it shows at full size. (B, 3, H, H)"""
        degradation = self.config.degradation
        if isinstance(batch, DegradedBatch):
            return enlarge(to_signal(batch.small_image, image.dtype), image.shape[-1])
        assert isinstance(degradation, GaussianBlurConfig), "bsr pictures are made where samples are decoded"
        blurred = ~keep(self.seed, "sharp", step, batch.index, degradation.probability)  # (B,)
        return low_res(image, self.config.network.low_size, degradation.sigma, blurred)
