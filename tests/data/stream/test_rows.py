"""Columns of vectors: every half precision number is what NumPy says it is."""

import numpy as np

from dalle2_train.data.embeddings.columns import FP16
from dalle2_train.data.stream.rows import _widened


def test_half_precision_is_widened_exactly():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    np.testing.assert_array_equal(_widened(halves, FP16), halves.astype(np.float32))
