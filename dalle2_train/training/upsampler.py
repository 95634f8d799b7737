"""Train an upsampler: large pictures beside small ones, on crops (§2.2 of unCLIP).

Legend: B batch, H picture side, S crop side.
"""

from dataclasses import dataclass

from dalle2_train.data.stream.batches import UpsamplerBatch
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.prediction import check_predictable
from dalle2_train.diffusion.process import add_noise
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.errors import InputError
from dalle2_train.networks.upsampler import Upsampler, UpsamplerConfig
from dalle2_train.parallel.shard import ParallelConfig
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.degradation import crop, low_res
from dalle2_train.training.denoising import DenoisingModule, check_probability, to_signal
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
    blur_sigma: float = 0.6
    """Pixels of the small picture; Gaussian blur with a kernel of 3. 0: none."""
    blur_probability: float = 0.5
    """Share of samples that are blurred (Ho et al. 2021, cascaded diffusion: half of them)."""

    def __post_init__(self) -> None:
        check_probability("blur_probability", self.blur_probability)
        check_predictable(self.objective.prediction_type, self.schedule.zero_terminal_snr)
        if self.blur_sigma < 0:
            raise InputError(f"blur_sigma is {self.blur_sigma}; it must be 0 or more")
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
        """Corners lie on the small picture's grid, so that enlarging has the phase that it has at full size."""
        high, low = self.network.high_size, self.network.low_size
        return high // low if high % low == 0 else 1

    def _check_crop(self) -> None:
        unit = 2 ** (len(self.network.channels) - 1)
        if not 0 < self.crop_fraction <= 1 or self.crop_size % unit or self.crop_size == 0:
            raise InputError(
                f"crop_fraction is {self.crop_fraction}, a side of {self.crop_fraction * self.network.high_size:g} "
                f"pixels; it must be in (0, 1] and give a multiple of {unit} pixels"
            )


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

    def compute_loss(self, batch: UpsamplerBatch, step: int) -> Loss:
        config, size = self.config, self.config.crop_size
        image = to_signal(batch.image, self.weights_dtype)  # (B, 3, H, H)
        blurred = ~keep(self.seed, "sharp", step, batch.index, config.blur_probability)  # (B,)
        low_res_image = low_res(image, config.network.low_size, config.blur_sigma, blurred)  # (B, 3, H, H)
        places = (config.network.high_size - size) // config.crop_stride + 1
        corners = config.crop_stride * offsets(self.seed, "crop", step, batch.index, places)  # (B, 2)
        x_0, low_res_image = crop(image, corners, size), crop(low_res_image, corners, size)  # (B, 3, S, S)
        draws = self.draw(x_0, batch.index, step)
        x_t = add_noise(self.schedule.to(x_0.device), x_0, draws.t, draws.eps)  # (B, 3, S, S)
        return self.loss(self.network(x_t, draws.t, low_res_image), x_0, x_t, draws)
