"""The filters that compare one number or word of a record with a bound: what each looks at, and what stays.

N samples of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from dalle2_train.data.shards.shard_index import ShardIndex

Mask = NDArray[np.bool_]
"""(N,) which samples of a shard."""
pc: Any = pyarrow.compute  # its functions come into being when it is imported


class Bound(NamedTuple):
    """A filter: its name in the config, the columns it asks for, and (index, bound) → which samples (N,) it keeps.

    Of samples whose record does not tell one of the columns, what it says means nothing.
    """

    name: str
    columns: tuple[str, ...]
    keeps: Callable[[ShardIndex, Any], Mask]


def is_told(index: ShardIndex, column: str) -> Mask:
    """(N,) which records tell a column; a side of no pixels tells nothing."""
    told = index.table.column(column).is_valid().to_numpy()
    return told & (numbers(index, column) > 0) if column in ("width", "height") else told


def numbers(index: ShardIndex, column: str) -> NDArray[np.float64]:
    """(N,) a column of numbers; what is not told is NaN."""
    return index.table.column(column).to_numpy().astype(np.float64)


def aspect(index: ShardIndex) -> NDArray[np.float64]:
    """(N,) the longer side by the shorter one."""
    width, height = numbers(index, "width"), numbers(index, "height")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.maximum(width, height) / np.minimum(width, height)


def _at_least(column: str) -> Callable[[ShardIndex, float], Mask]:
    return lambda index, bound: numbers(index, column) >= bound


def _at_most(column: str) -> Callable[[ShardIndex, float], Mask]:
    return lambda index, bound: numbers(index, column) <= bound


def _words(index: ShardIndex, words: tuple[str, ...]) -> Mask:
    return _among(pc.utf8_upper(index.table.column("nsfw")), tuple(word.upper() for word in words))


def _languages(index: ShardIndex, languages: tuple[str, ...]) -> Mask:
    return _among(index.table.column("language"), languages)


def _among(column: pa.ChunkedArray, words: tuple[str, ...]) -> Mask:
    return pc.is_in(column, pa.array(words, pa.string())).to_numpy()


# In the order of precedence, which is that of the config.
BOUNDS = (
    Bound("min_width", ("width",), _at_least("width")),
    Bound("min_height", ("height",), _at_least("height")),
    Bound("max_aspect", ("width", "height"), lambda index, bound: aspect(index) <= bound),
    Bound("min_caption_length", ("caption_length",), _at_least("caption_length")),
    Bound("max_caption_length", ("caption_length",), _at_most("caption_length")),
    Bound("min_similarity", ("similarity",), _at_least("similarity")),
    Bound("min_aesthetic", ("aesthetic",), _at_least("aesthetic")),
    Bound("max_punsafe", ("punsafe",), _at_most("punsafe")),
    Bound("max_nsfw_score", ("nsfw_score",), _at_most("nsfw_score")),
    Bound("max_pwatermark", ("pwatermark",), _at_most("pwatermark")),
    Bound("nsfw", ("nsfw",), _words),
    Bound("languages", ("language",), _languages),
)
