"""Texts, records and arrays: what is there comes back, and nothing that a hostile member promises."""

import io
import json

import numpy as np
import pytest

from dalle2_train.data import limits
from dalle2_train.data.values import decode_array, decode_record, decode_text


def npy(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", ">f4", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
def test_an_array_is_numpys(dtype: str, shape: tuple[int, ...]):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = decode_array(npy(array))
    assert (found == array).all() and (found.shape, found.dtype) == (array.shape, array.dtype)


def test_an_array_is_no_larger_than_its_bytes():
    data = npy(np.zeros(5, np.float32))
    promising = data.replace(b"(5,), }   ", b"(5000,), }")
    assert promising != data and len(promising) == len(data)
    for other in (promising, data[:-1], data + b"0"):
        with pytest.raises(ValueError, match="promises"):
            decode_array(other)
    with pytest.raises(ValueError, match="limit"):
        decode_array(data, limit=len(data) - 1)


@pytest.mark.parametrize("data", [b"", b"PK\3\4 broken", b"\x93NUMPY"])
def test_what_is_no_array_is_refused(data: bytes):
    with pytest.raises(ValueError, match="magic"):
        decode_array(data)


def test_an_array_never_runs_code():
    data = npy(np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        decode_array(data)


def test_texts_are_utf8_that_says_something():
    assert decode_text(" a cät \n".encode()) == "a cät"
    for data in (b"", b" \n", b"caf\xe9", b"a" * (limits.TEXT_BYTES + 1)):
        with pytest.raises(ValueError, match=r"empty|utf-8|limit"):
            decode_text(data)


def test_records_are_objects():
    record = {"width": 3, "caption": "ü", "list": [None, 0.5]}
    assert decode_record(json.dumps(record).encode()) == record
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for data in (b"", b"[1]", b'{"a": ', b'{"a": "\xff"}', deep, b" " * limits.TEXT_BYTES + b"{}"):
        with pytest.raises(ValueError, match=r"object|nested|limit|utf-8|Expecting"):
            decode_record(data)
