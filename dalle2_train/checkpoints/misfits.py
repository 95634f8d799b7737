"""Where weights do not fit a network: what is missing, what is too much, and which shapes differ, in few words."""

from collections.abc import Mapping, Sequence

from torch import Tensor

_SHOWN = 3


def describe_misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Empty where `found` has exactly the names and shapes of `expected`, whose tensors may be on the meta device."""
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    told = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": shapes,
    }
    return "; ".join(f"{what}: {_first(names)}" for what, names in told.items() if names)


def _first(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
