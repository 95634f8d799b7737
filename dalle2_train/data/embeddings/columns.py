"""The .npy files of an embedded set: written batch by batch, read by ranges of rows, never by pickle.

N rows, E embedding.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data import limits
from dalle2_train.errors import InputError

FP32, FP16, BF16 = "fp32", "fp16", "bf16"
DTYPES: dict[str, np.dtype[Any]] = {
    FP32: np.dtype("<f4"),
    FP16: np.dtype("<f2"),
    BF16: np.dtype("<u2"),
}
"""Name → what the file holds; NumPy has no bfloat16, whose bits are kept as unsigned integers."""
_EXPONENTS = {FP32: 0x7F800000, FP16: 0x7C00, BF16: 0x7F80}
_HEADER_BYTES = 4096


class Header(NamedTuple):
    """What a .npy file says of itself."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    """Bytes before the first row."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


def widened(stored: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The float32 numbers that a file of `dtype` holds, exactly."""
    if dtype == BF16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def finite_rows(stored: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    """(N,) of which rows of a file of `dtype` all numbers are finite: those whose exponents are not all ones."""
    bits = stored.view(f"u{stored.dtype.itemsize}").reshape(len(stored), -1)
    ones = bits.dtype.type(_EXPONENTS[dtype])
    return (bits & ones).max(1) < ones


class RowsWriter:
    """Appends rows to a .npy file; how many they are is known at the end only. `with` closes it."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._like: NDArray[Any] | None = None
        self.num_rows = 0

    def append(self, rows: NDArray[Any]) -> None:
        """rows: (N, …), of the same dtype and width every time."""
        if self._like is None:
            self._like = rows[:0]
            self._write_header()
        assert rows.dtype == self._like.dtype and rows.shape[1:] == self._like.shape[1:]
        self._stream.write(np.ascontiguousarray(rows).data)
        self.num_rows += len(rows)

    def __enter__(self) -> RowsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stream:
            if self._like is not None:
                end = self._stream.tell()
                self._stream.seek(0)
                self._write_header()  # NumPy leaves room in it for any number of rows
                self._stream.seek(end)

    def _write_header(self) -> None:
        assert self._like is not None
        shape = (self.num_rows, *self._like.shape[1:])
        told = {"descr": npy.dtype_to_descr(self._like.dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._stream, told)


def read_header(uri: str) -> Header:
    """The header of the .npy file at `uri`. Missing, or another kind of file: InputError."""
    stream = io.BytesIO(storage.read_bytes(uri, 0, _HEADER_BYTES))
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
        if fortran_order or dtype.hasobject or not shape:
            raise ValueError(f"an array of {dtype} in {'columns' if fortran_order else 'rows'}")
        header = Header(dtype, tuple(shape), stream.tell())
        if not 0 < header.row_bytes <= limits.MEMBER_BYTES:
            raise ValueError(f"rows of {header.row_bytes} bytes")
    except Exception as error:  # the header is Python's, and its parser raises what the bytes lead it to
        raise InputError(f"{uri}: no rows of numbers ({error}); embed again, or give other files") from error
    return header


def read_rows(uri: str, header: Header, start: int, stop: int) -> NDArray[Any]:
    """Rows [start, stop) in one read; fewer where the file ends before them."""
    first, wanted = header.offset + start * header.row_bytes, (stop - start) * header.row_bytes
    data = storage.read_bytes(uri, first, wanted)
    whole = len(data) // header.row_bytes
    return np.frombuffer(data, header.dtype, whole * (header.row_bytes // header.dtype.itemsize)).reshape(
        whole, *header.shape[1:]
    )


def encodings_dtype(dtype: str) -> str:
    """Of the text encodings in a set whose embeddings are kept in `dtype`: half precision.

    They come out of a layer norm, far below its largest number.
    """
    return BF16 if dtype == BF16 else FP16
