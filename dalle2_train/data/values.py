"""Bytes to texts, json records and arrays: strictly, within the limits, and without pickle."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data import limits


def decode_array(data: bytes, limit: int = limits.MEMBER_BYTES) -> NDArray[Any]:
    """A .npy member, without pickle. ValueError when it is something else."""
    if len(data) > limit:
        raise ValueError(f"an array member of {len(data)} bytes is over the limit of {limit}")
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(stream)
        # NumPy makes room for what the header promises before it looks at what is there.
        if dtype.hasobject:
            raise ValueError("it holds pickled objects")
        if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
            raise ValueError(f"it promises {shape} of {dtype}")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # the header is Python's, and its parser raises what the bytes lead it to
        raise ValueError(f"not an array ({error})") from error


def decode_text(data: bytes) -> str:
    """Strict UTF-8 that says something. ValueError otherwise."""
    if len(data) > limits.TEXT_BYTES:
        raise ValueError(f"a text of {len(data)} bytes is over the limit of {limits.TEXT_BYTES}")
    text = data.decode("utf-8").strip()
    if not text:
        raise ValueError("the text is empty")
    return text


def decode_record(data: bytes) -> dict[str, Any]:
    """A json member: one object. ValueError otherwise."""
    if len(data) > limits.TEXT_BYTES:
        raise ValueError(f"a json record of {len(data)} bytes is over the limit of {limits.TEXT_BYTES}")
    try:
        found = json.loads(data.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("the json record is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("the json record is not an object")
    return found
