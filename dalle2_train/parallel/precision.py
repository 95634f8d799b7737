"""Which number format the network computes in; weights, sums of gradients and averages are fp32 always."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def mixed_precision_dtype(precision: Literal["auto", "fp32", "bf16"], device_type: str) -> torch.dtype | None:
    """bfloat16, or None for the weights' own format."""
    if precision == "fp32":
        return None
    fast = has_fast_bf16(device_type)
    if precision == "bf16" and not fast:
        warnings.warn(f"training.precision is bf16, which this {device_type} only emulates, far slower than fp32",
                      stacklevel=2)  # fmt: skip
    return torch.bfloat16 if fast or precision == "bf16" else None


def attention_kernel(device_type: str) -> AbstractContextManager[Any]:
    """On CPUs the plain kernel: the fused one's backward takes three times as long for a few hundred tokens."""
    return sdpa_kernel(SDPBackend.MATH) if device_type == "cpu" else nullcontext()


def has_fast_bf16(device_type: str) -> bool:
    """True where bf16 has its own instructions, rather than being emulated."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        features = torch.cpu.get_capabilities()
        return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("amx_tile"))
    return False
