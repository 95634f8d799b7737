"""Muon (Jordan et al. 2024): a matrix's step is its gradient's average with all singular values made about equal.

So directions that the gradient hardly shows are learned as fast as its strongest ones. Kernels of convolutions are
matrices of (out channels, what a pixel of theirs reads). A step's size is scaled as in Liu et al. 2025 ("Muon is
scalable for LLM training"), so that the learning rates and decays of AdamW fit both.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dalle2_train.parallel.gathering import gather_rows, own_rows
from dalle2_train.parallel.shard import local

MOMENTUM = 0.95
# Jordan et al.'s: five rounds of x → ax + bx³ + cx⁵ take singular values from 0.01 to 1 to about 0.7 to 1.2.
_COEFFICIENTS, _ROUNDS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.AdamW):
    """Muon for `matrices`, AdamW for all other parameters: one optimizer, and one state in the checkpoints.

    dtype: of the matrix products, which are most of its time; None: the weights' own.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        matrices: Iterable[nn.Parameter],
        dtype: torch.dtype | None = None,
        **adamw: Any,
    ) -> None:
        super().__init__(groups, **adamw)
        self._matrices = set(matrices)
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update. Clears the gradients of the matrices."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter in self._matrices:
                    self._step_matrix(parameter, group["lr"], group["weight_decay"])
        super().step(closure)

    def _step_matrix(self, parameter: nn.Parameter, rate: float, weight_decay: float) -> None:
        gradient, parameter.grad = parameter.grad, None  # so that AdamW passes over it
        if gradient is None:
            return
        state = self.state[parameter]
        if not state:  # AdamW reads `step` of every state that it restores
            state |= {"momentum_buffer": torch.zeros_like(parameter), "step": torch.zeros(())}
        state["step"] += 1
        average = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        update = _own_orthogonal(gradient.lerp(average, MOMENTUM), self._dtype or parameter.dtype)
        longest = max(parameter.shape[0], parameter.shape[1:].numel())
        mine = local(parameter)
        mine.mul_(1 - rate * weight_decay).add_(update.to(mine.dtype), alpha=-rate * 0.2 * longest**0.5)


def kernels(network: nn.Module) -> Iterator[nn.Parameter]:
    """The trained parameters that Muon steps: the weights of linear layers and convolutions."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            if weight.requires_grad:
                yield weight


def orthogonal(matrix: Tensor) -> Tensor:
    """U Vᵀ of the matrix's U S Vᵀ, roughly: by Newton–Schulz iteration, in its dtype. A matrix of zeros stays one."""
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def _own_orthogonal(update: Tensor, dtype: torch.dtype) -> Tensor:
    """This rank's FSDP shard of `orthogonal` of a kernel, which every rank computes as a whole."""
    matrix = gather_rows(update) if isinstance(update, DTensor) else update
    found = orthogonal(matrix.flatten(1).to(dtype)).view(matrix.shape)
    return own_rows(found, update) if isinstance(update, DTensor) else found
