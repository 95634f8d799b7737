"""One update of the weights, the same for every family: what differs between families is `compute_loss` alone.

A family's module holds its network in `self.network`, takes the batch apart, draws noise keyed by
(training.seed, purpose, step, batch.index) and returns a `Loss`. It may hold other frozen modules beside it: only
`network` is sharded, optimised, averaged and checkpointed. Parameters of the network are whole tensors inside its
`forward` only; outside of it they are a rank's shards. Frozen parameters and buffers are always whole.

`step` counts the updates that came before: the first batch is step 0. Records and checkpoints are named by the
updates done: the first one is written as step 1.
"""

from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dalle2_train import seeding
from dalle2_train.checkpoints.exchange import raise_together
from dalle2_train.errors import InputError
from dalle2_train.parallel.agreement import Agreement, News, agree
from dalle2_train.parallel.clipping import clip_coefficient, local_squared_norm, scale_gradients
from dalle2_train.parallel.ema import Ema, warmed_up_decay
from dalle2_train.parallel.precision import attention_kernel, mixed_precision_dtype
from dalle2_train.parallel.probe import probe_seconds
from dalle2_train.parallel.shard import ParallelConfig, is_sharded, trained_parameters
from dalle2_train.parallel.sharpness import sharpness_aware_gradient
from dalle2_train.training.agreed_stream import Delivery
from dalle2_train.training.config import OptimizerConfig, TrainingConfig
from dalle2_train.training.gradients import accumulate_gradient
from dalle2_train.training.memory import Load, told_what_fits
from dalle2_train.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from dalle2_train.training.outcome import StepOutcome
from dalle2_train.training.placing import place, trained_blocks
from dalle2_train.training.protocols import Loss
from dalle2_train.training.stopwatch import Lap, Stopwatch


class UnclipModule(pl.LightningModule):
    """A network, its settings and one update; subclasses add `compute_loss`."""

    kind: ClassVar[str]
    """The family: the manifest's kind."""
    splits_batches: ClassVar[bool] = True
    """False where the loss is not a mean over samples (contrastive), so that micro-batches would change it."""

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        training: TrainingConfig,
        optimizer: OptimizerConfig,
        parallel: ParallelConfig | None = None,
    ) -> None:
        super().__init__()
        if training.micro_batch_size is not None and not self.splits_batches:
            raise InputError(f"training.micro_batch_size is {training.micro_batch_size}, but a {self.kind} model's "
                             "loss compares all samples of a batch; remove the setting")  # fmt: skip
        self.automatic_optimization = False
        self.network = network
        self.training_config = training
        self.optimizer_config = optimizer
        self.parallel_config = parallel or ParallelConfig()
        self.seed = training.seed
        self.completed_steps = 0
        self.stop_requested = False
        self.failure: Exception | None = None
        """Why this rank cannot go on, whatever its data says; all ranks hear of it at the next step."""
        self.left_out: Container[int] = ()
        """Steps whose batches change nothing."""
        self.stopwatch = Stopwatch()
        self.lap = Lap(0.0, 0.0, 0.0, 0.0)
        """Of the last step, on this rank."""
        self.order: Any = None
        self.outcome: StepOutcome | None = None
        self.ema: Ema | None = None
        self.autocast_dtype: torch.dtype | None = None
        self._configured = False

    # What a family writes -------------------------------------------------------------------------------------------

    def compute_loss(self, batch: Any, step: int) -> Loss:
        """The mean loss over this rank's samples. batch: the family's NamedTuple, on `self.device`."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The parts of the network that are gathered one at a time: `network.blocks`, or what lies in ModuleLists."""
        return trained_blocks(self.network)

    def write_model(self, weights: dict[str, Tensor], folder: Path) -> None:
        """Write the released form of the (averaged, whole) weights of `network` into a local folder."""
        save_file(
            {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors"
        )

    @property
    def weights_dtype(self) -> torch.dtype:
        """What the weights are kept in, and losses are taken in."""
        return next(self.network.parameters()).dtype

    # What Lightning calls -------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Shard the network over the strategy's mesh; average from here on."""
        if self._configured:
            return
        self._configured = True
        config, mesh = self.training_config, self.device_mesh
        assert mesh is not None
        self.autocast_dtype = mixed_precision_dtype(config.precision, mesh.device_type)
        device = torch.device(self.trainer.strategy.root_device)
        with told_what_fits(self._load(0)):
            place(
                self.network, self.blocks(), mesh, device, config, self.parallel_config, self.autocast_dtype
            )
            self._trained = [parameter for _, parameter in trained_parameters(self.network)]
            self.ema = Ema(self.network)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.network, self.optimizer_config, self.autocast_dtype)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if device.type == "cpu":
            return batch
        values = batch.values
        moved = type(values)(*(value.to(device, non_blocking=True) for value in values))
        return batch._replace(values=moved)

    def training_step(self, batch: Delivery, batch_idx: int) -> None:
        step, config = self.completed_steps, self.training_config
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer) and self.ema is not None
        rate = learning_rate(self.optimizer_config, step, config.num_steps)
        set_learning_rate(optimizer, rate)

        at_once = min(len(batch.values[0]), config.micro_batch_size or len(batch.values[0]))
        with told_what_fits(self._load(at_once)):
            loss = self._gradient(batch.values, step)
        agreed = self._agree(loss, batch)
        if agreed.failed:
            raise_together(batch.error or self.failure)
        is_left_out = step in self.left_out
        if agreed.finite and not is_left_out:
            scale_gradients(self._trained, clip_coefficient(agreed.gradient_norm, config.gradient_clip_norm))
            with told_what_fits(self._load(at_once)):  # its state is made at the first step
                optimizer.step()
            self.ema.update(warmed_up_decay(config.ema_decay, step))
        optimizer.zero_grad(set_to_none=True)

        self.completed_steps, self.order, self.lap = step + 1, batch.order, self.stopwatch.lap()
        self.outcome = StepOutcome(
            step + 1,
            agreed.loss,
            agreed.gradient_norm,
            rate,
            skipped=is_left_out or not agreed.finite,
            left_out=is_left_out,
            stop=agreed.stop,
            data=agreed.data,
            data_seconds=tuple(data for data, _ in agreed.seconds),
            probe_seconds=tuple(speed for _, speed in agreed.seconds),
            metrics=agreed.metrics,
        )

    # How ------------------------------------------------------------------------------------------------------------

    def _gradient(self, batch: Any, step: int) -> Loss:
        """Of the rank's part of the batch. With SAM it is that uphill; what is told is of the weights as they are."""
        found = self._backward(batch, step)
        rho = self.optimizer_config.sam_rho
        if rho == 0:
            return found
        assert self.device_mesh is not None
        loss = sharpness_aware_gradient(self.network, self._trained, self.device_mesh, rho, found.loss,
                                        lambda: self._backward(batch, step).loss)  # fmt: skip
        return found._replace(loss=loss)

    def _load(self, num_samples: int) -> Load:
        assert self.device_mesh is not None
        return Load(
            num_samples, self.splits_batches, self.parallel_config, self.device.type, self.device_mesh.size()
        )

    def _backward(self, batch: Any, step: int) -> Loss:
        """Add the gradient at the present weights; dropout is the same every time."""
        config = self.training_config
        dropout = seeding.key(config.seed, "dropout", step, self.global_rank)
        seeding.reseed_dropout(dropout, self.device.type)
        return accumulate_gradient(
            self.network, lambda part: self._loss(part, step), batch, config.micro_batch_size
        )

    def _loss(self, batch: Any, step: int) -> Loss:
        with self.precision_context(), attention_kernel(self.device.type):
            return self.compute_loss(batch, step)

    def _agree(self, loss: Loss, batch: Delivery) -> Agreement:
        """One small all-reduce: nothing about the step is decided by a rank alone."""
        has_failed = batch.error is not None or self.failure is not None
        is_logged = (self.completed_steps + 1) % self.training_config.log_every_steps == 0
        speed = probe_seconds(self.device) if is_logged else 0.0
        news = News(self.stop_requested, has_failed, batch.news(), (self.stopwatch.data_seconds, speed))
        assert self.device_mesh is not None
        return agree(
            loss.loss,
            local_squared_norm(self._trained),
            news,
            loss.metrics if is_logged else {},
            self.device_mesh,
        )

    def precision_context(self) -> AbstractContextManager[Any]:
        """Sharded networks cast at their blocks' doors (FSDP2's policy); a network in one piece runs under autocast."""
        assert self.device_mesh is not None
        if self.autocast_dtype is None or is_sharded(self.device_mesh, self.parallel_config):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)
