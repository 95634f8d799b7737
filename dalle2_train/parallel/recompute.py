"""Activation checkpointing: a block's activations are computed again for its backward (Chen et al. 2016)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Iterable[nn.Module], context: Callable[[], AbstractContextManager[Any]]) -> None:
    """Let each block keep its inputs only, in place; names of parameters stay.

    context: what the forward runs in, made anew for the second time, when nothing around it is in force any more.
    Random draws and autocast are the same both times.
    """
    for block in blocks:
        block.forward = partial(
            checkpoint, block.forward, use_reentrant=False, context_fn=lambda: (nullcontext(), context())
        )
