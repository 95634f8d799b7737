"""Lightning turns the crank; logging, checkpoints, progress and the counting of steps are ours."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist

from dalle2_train.checkpoints.load import load_into
from dalle2_train.checkpoints.state import restore_optimizer, state_of
from dalle2_train.training.agreed_stream import AgreedStream
from dalle2_train.training.base import UnclipModule
from dalle2_train.training.strategy import MeshStrategy


class Resume(pl.Callback):
    """Loads the checkpoint once Lightning has sharded the network and made the optimizer; steps are timed from then."""

    def __init__(self, checkpoint: str | None) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if self.checkpoint is not None:
            self._load(pl_module, self.checkpoint)
        pl_module.stopwatch.lap()

    def _load(self, module: Any, checkpoint: str) -> None:
        optimizer = module.optimizers(use_pl_optimizer=False)
        state = state_of(module.network, module.ema.averages, optimizer)
        load_into(checkpoint, state)
        restore_optimizer(module.network, optimizer, state)
        if dist.get_rank() == 0:
            # Ray says what is printed a second time.
            sys.stderr.write(f"going on from {checkpoint}\n")


def run_steps(
    module: UnclipModule, stream: AgreedStream, strategy: MeshStrategy, callbacks: list[pl.Callback]
) -> None:
    """Do the steps that are left of `module.training_config.num_steps`, or as many as the callbacks let pass."""
    left = module.training_config.num_steps - module.completed_steps
    with _quiet():
        trainer = pl.Trainer(
            accelerator="cpu" if strategy.root_device.type == "cpu" else "cuda",
            devices=1,
            strategy=strategy,
            max_epochs=1,
            limit_train_batches=left,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=callbacks,
        )
        # Lightning broadcasts before each step whether a signal came; ours travels in the step's own all-reduce.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        try:
            trainer.fit(module, train_dataloaders=stream)
        except SystemExit as exit_:
            raise KeyboardInterrupt from exit_  # what Lightning makes of a second Ctrl-C


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric)\b.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
