"""Columns: the files are NumPy's, whoever writes or reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dalle2_train.data.embeddings.columns import (
    BF16,
    FP16,
    FP32,
    RowsWriter,
    finite_rows,
    read_header,
    read_rows,
    widened,
)
from dalle2_train.errors import InputError


@pytest.mark.parametrize("shape", [(5,), (3, 4), ()])
@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<u2", "|b1"])
def test_files_are_byte_for_byte_numpys(tmp_path: Path, shape: tuple[int, ...], dtype: str):
    rows = np.random.default_rng(0).integers(0, 2, (1000, *shape)).astype(dtype)
    with RowsWriter(tmp_path / "ours.npy") as writer:
        for start in range(0, 1000, 7):
            writer.append(rows[start : start + 7])
    np.save(tmp_path / "theirs.npy", rows)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_any_range_of_rows_is_numpys(tmp_path: Path):
    rows = np.random.default_rng(0).standard_normal((50, 3, 2)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    header = read_header(str(tmp_path / "rows.npy"))
    assert (header.shape, header.dtype, header.row_bytes) == ((50, 3, 2), np.float16, 12)
    for start, stop in ((0, 50), (7, 8), (49, 50), (20, 20)):
        np.testing.assert_array_equal(
            read_rows(str(tmp_path / "rows.npy"), header, start, stop), rows[start:stop]
        )


def test_a_cut_file_gives_the_rows_that_are_whole(tmp_path: Path):
    np.save(tmp_path / "rows.npy", np.arange(40, dtype=np.float32).reshape(10, 4))
    header = read_header(str(tmp_path / "rows.npy"))
    data = (tmp_path / "rows.npy").read_bytes()
    (tmp_path / "rows.npy").write_bytes(data[:-20])
    assert read_rows(str(tmp_path / "rows.npy"), header, 6, 10).tolist() == [
        [24, 25, 26, 27],
        [28, 29, 30, 31],
    ]


def test_bfloat16_is_torchs():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    bits = values.to(torch.bfloat16)
    ours = widened(bits.view(torch.int16).numpy().view(np.uint16), "bf16")
    np.testing.assert_array_equal(ours, bits.float().numpy())


def test_other_files_are_refused(tmp_path: Path):
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "turned.npy", np.asfortranarray(np.zeros((3, 4))))
    (tmp_path / "noise.npy").write_bytes(b"<html>")
    np.save(tmp_path / "nothing.npy", np.zeros((3, 0)))
    for name in ("pickle", "turned", "noise", "nothing"):
        with pytest.raises(InputError, match=f"{name}.npy: no rows of numbers"):
            read_header(str(tmp_path / f"{name}.npy"))


def test_every_half_precision_number_is_called_finite_as_numpy_calls_it():
    halves = np.arange(1 << 16, dtype=np.uint16)[:, None]
    np.testing.assert_array_equal(
        finite_rows(halves.view(np.float16), FP16), np.isfinite(halves.view(np.float16))[:, 0]
    )
    np.testing.assert_array_equal(finite_rows(halves, BF16), np.isfinite(widened(halves, BF16))[:, 0])


def test_one_number_that_is_not_finite_spoils_its_row():
    rows = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    rows[0] = np.finfo(np.float32).max
    rows[1, 4], rows[2, 0], rows[3, 2] = np.nan, np.inf, -np.inf
    assert finite_rows(rows, FP32).tolist() == [True, False, False, False, True, True]
