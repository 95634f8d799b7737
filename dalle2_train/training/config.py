"""How long, how much at a time and how carefully to train: the settings that every family of models shares."""

from dataclasses import dataclass
from typing import Literal

from dalle2_train.errors import InputError


@dataclass(frozen=True)
class TrainingConfig:
    """The settings of the loop. Counts are of steps (updates of the weights) or of samples."""

    num_steps: int
    global_batch_size: int
    """Samples in one update, over all ranks together."""
    micro_batch_size: int | None = None
    """Samples that a rank takes through the network at once; None takes the rank's whole part of the batch."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where this hardware is really faster at it, fp32 elsewhere."""
    ema_decay: float = 0.999
    """Decay per step of the averaged weights, which are what is sampled from, evaluated and released."""
    gradient_clip_norm: float | None = 1.0
    """Largest L2 norm of the whole gradient; None clips nothing."""
    checkpoint_every_steps: int = 500
    keep_checkpoints: int = 2
    """The newest ones stay."""
    keep_best_checkpoints: int = 0
    """And so many of those with the lowest loss, the mean over the steps since the one before."""
    log_every_steps: int = 10
    sample_every_steps: int = 500
    """Draw a picture of what the averaged weights can do; 0 never does."""
    max_nonfinite_steps: int = 10
    """So many non-finite losses or gradients in a row rewind the run, or stop it; single ones are left out."""
    max_rewinds: int = 2
    """So often it goes back to a checkpoint, and leaves out the batches that led to it; after that it stops."""
    rewind_steps: int = 20
    """Updates before the first non-finite one that are left out too when it rewinds."""
    step_deadline_seconds: float | None = 180.0
    """A rank that takes longer for a step, waiting for data included, ends itself, and all start again from the last
    checkpoint. Give more than the 120 s for which storage is tried again; null: none."""
    first_step_deadline_seconds: float | None = 1800.0
    """The same for the first step, which compiles, for steps after which pictures are drawn, and for saves that are
    waited for."""
    max_failures: int = 3
    """So many failures of workers Ray starts again after. Then the run ends, unless it wrote a checkpoint meanwhile:
    they are counted anew from there."""
    num_threads: int | None = None
    """Threads of a rank on the CPU; None takes OMP_NUM_THREADS, or torch's own choice. The last bits depend on it."""
    channels_last: bool = False
    """Pictures lie as (height, width, channel) in memory, which bf16 convolutions on CPUs and GPUs run faster on."""
    compile: bool = False
    """torch.compile the network: a slow first step, faster later ones."""

    def __post_init__(self) -> None:
        for name in (
            "num_steps",
            "global_batch_size",
            "micro_batch_size",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "log_every_steps",
            "max_nonfinite_steps",
            "num_threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"training.{name} is {value}; it must be at least 1")
        for name in (
            "sample_every_steps", "max_failures", "keep_best_checkpoints", "max_rewinds", "rewind_steps",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                raise InputError(f"training.{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("step_deadline_seconds", "first_step_deadline_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"training.{name} is {value}; it must be positive, or null for none")
        if self.gradient_clip_norm is not None and self.gradient_clip_norm <= 0:
            raise InputError(
                f"training.gradient_clip_norm is {self.gradient_clip_norm}; it must be positive, or null for none"
            )
        if not 0.0 <= self.ema_decay < 1.0:
            raise InputError(f"training.ema_decay is {self.ema_decay}; it must be in [0, 1)")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning rate, which is a pure function of the step."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon: Muon (Jordan et al. 2024) for the weights of linear layers and convolutions, AdamW for all else."""
    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """Decoupled; applied to matrices and kernels, not to biases, gains and other vectors."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.0
    """What the cosine schedule leaves of the learning rate at the last step."""
    sam_rho: float = 0.0
    """Radius of sharpness-aware minimisation (Foret et al. 2021), an L2 distance over all weights; 0: none. Every step
    then computes two gradients, so a training takes twice the time. unCLIP's CLIP was trained with 0.1."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epsilon", "weight_decay", "warmup_steps", "final_fraction", "sam_rho"):
            if getattr(self, name) < 0:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; it must be 0 or more")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"optimizer.{name} is {getattr(self, name)}; it must be in [0, 1)")
