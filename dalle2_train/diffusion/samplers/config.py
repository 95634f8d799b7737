"""How a sample is drawn."""

from dataclasses import dataclass
from typing import Literal

from dalle2_train.diffusion.prediction import PredictionType
from dalle2_train.errors import InputError

SamplerName = Literal["ddpm", "ddim", "dpm_solver", "analytic_dpm"]
VarianceName = Literal["fixed_small", "fixed_large", "learned_range"]


@dataclass(frozen=True)
class SamplerConfig:
    """How a sample is drawn."""

    name: SamplerName = "ddpm"
    """ddpm: ancestral, over strided timesteps, equal to diffusers' UnCLIPScheduler. ddim: Song et al. 2021.
    dpm_solver: DPM-Solver++(2M) of Lu et al. 2022, deterministic. analytic_dpm: Bao et al. 2022, ancestral with the
    variance that is optimal for the steps taken."""
    num_steps: int = 25
    """Number of steps, each one call of the network."""
    eta: float = 0.0
    """ddim's noise: 0 is deterministic, 1 has the posterior's variance."""
    variance: VarianceName = "fixed_small"
    """ddpm's variance. fixed_small: the posterior's, optimal if x_0 is one point. fixed_large: beta, optimal if x_0 is
    standard Gaussian. learned_range: between them, as the network says."""
    clip_sample_range: float | None = 1.0
    """Every predicted x_0 is clamped to ± this; null: not at all."""
    threshold_quantile: float | None = None
    """Dynamic thresholding (Saharia et al. 2022): where this share of a sample's |x_0| exceeds the clip range, x_0 is
    clamped there instead and scaled back into the range; 0.995 in the paper. null: static clamping."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"sampler num_steps {self.num_steps} must be at least 1")
        if not 0 <= self.eta <= 1:
            raise InputError(
                f"sampler eta {self.eta} must be 0 to 1: more noise than the posterior's is too much"
            )
        if self.name != "ddpm" and self.variance != "fixed_small":
            raise InputError(f"sampler {self.name} has no use for variance {self.variance}: use ddpm")
        if self.name != "ddim" and self.eta != 0:
            raise InputError(f"sampler {self.name} has no use for eta {self.eta}: leave it 0, or use ddim")
        self._check_threshold()

    def _check_threshold(self) -> None:
        bound, quantile = self.clip_sample_range, self.threshold_quantile
        if bound is not None and bound <= 0:
            raise InputError(f"sampler clip_sample_range {bound} must be positive, or null")
        if quantile is None:
            return
        if bound is None:
            raise InputError(
                "sampler threshold_quantile scales into clip_sample_range, which is null: set it"
            )
        if not 0 < quantile <= 1:
            raise InputError(f"sampler threshold_quantile {quantile} must be in (0, 1], or null")
