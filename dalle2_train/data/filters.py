"""Which samples are trained on, by what their index tells of them, before anything is read or decoded.

N samples of a shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.shard_index import ShardIndex
from dalle2_train.errors import InputError

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class FilterConfig:
    """Bounds on what the records tell; null: no bound. What a filter drops is counted under its name."""

    min_width: int | None = None
    """Pixels of the original picture."""
    min_height: int | None = None
    max_aspect: float | None = None
    """Longer side by shorter side."""
    min_caption_length: int | None = None
    """Characters."""
    max_caption_length: int | None = None
    min_similarity: float | None = None
    """CLIP's cosine of picture and caption."""
    min_aesthetic: float | None = None
    """LAION's score, 1 to 10."""
    max_punsafe: float | None = None
    """Probability."""
    max_pwatermark: float | None = None
    """Probability."""
    languages: tuple[str, ...] = ()
    """Those to keep, as the records name them; empty: all."""
    keep_untold: bool = False
    """Whether a sample stays whose record does not tell what a filter asks for."""

    def __post_init__(self) -> None:
        for name in ("min_width", "min_height", "min_caption_length", "max_caption_length"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise InputError(f"data.filters.{name} is {value}; it must be 0 or more, or null")
        if self.max_aspect is not None and self.max_aspect < 1:
            raise InputError(f"data.filters.max_aspect is {self.max_aspect}; it must be 1 or more, or null")


def dropped(index: ShardIndex, config: FilterConfig) -> Iterator[tuple[str, Mask]]:
    """(filter, which samples (N,) it drops) for every filter that is set, whatever other filters say."""
    for name, column, keeps in _BOUNDS:
        bound = getattr(config, name)
        if bound is None or bound == ():
            continue
        values = column(index)
        told = ~_is_null(values)
        kept = np.zeros(len(index), dtype=bool)
        kept[told] = keeps(values[told], bound)
        yield name, ~(kept | ~told) if config.keep_untold else ~kept


def _numbers(name: str) -> Callable[[ShardIndex], NDArray[Any]]:
    return lambda index: index.table.column(name).to_numpy().astype(np.float64)  # nulls become NaN


def _texts(name: str) -> Callable[[ShardIndex], NDArray[Any]]:
    return lambda index: np.array(index.table.column(name).to_pylist(), dtype=object)


def _aspect(index: ShardIndex) -> NDArray[np.float64]:
    width, height = _numbers("width")(index), _numbers("height")(index)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(width, height) / np.minimum(width, height)


def _is_null(values: NDArray[Any]) -> Mask:
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values)


def _at_least(values: NDArray[Any], bound: float) -> Mask:
    return values >= bound


def _at_most(values: NDArray[Any], bound: float) -> Mask:
    return values <= bound


def _among(values: NDArray[Any], wanted: tuple[str, ...]) -> Mask:
    return np.isin(values.astype(str), wanted)


# (the config's field, the values that it looks at, which of them stay)
_BOUNDS: tuple[tuple[str, Callable[[ShardIndex], NDArray[Any]], Callable[[NDArray[Any], Any], Mask]], ...] = (
    ("min_width", _numbers("width"), _at_least),
    ("min_height", _numbers("height"), _at_least),
    ("max_aspect", _aspect, _at_most),
    ("min_caption_length", _numbers("caption_length"), _at_least),
    ("max_caption_length", _numbers("caption_length"), _at_most),
    ("min_similarity", _numbers("similarity"), _at_least),
    ("min_aesthetic", _numbers("aesthetic"), _at_least),
    ("max_punsafe", _numbers("punsafe"), _at_most),
    ("max_pwatermark", _numbers("pwatermark"), _at_most),
    ("languages", _texts("language"), _among),
)
