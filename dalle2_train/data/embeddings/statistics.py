"""The statistics of an embedded set, taken from what is stored: mean, deviation, norm and covariance.

N vectors, E embedding.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from dalle2_train import storage
from dalle2_train.data.embeddings.columns import Header, read_rows, widened
from dalle2_train.data.embeddings.layout import COVARIANCE, EmbeddingInfo
from dalle2_train.data.embeddings.moments import NOTHING, Moments, moments_of
from dalle2_train.errors import InputError

_ROWS_TOGETHER = 4096


def moments_of_file(uri: str, header: Header, dtype: str, chosen: NDArray[np.bool_]) -> Moments:
    """Of the finite ones among the `chosen` (N,) rows of a column of image embeddings (N, E)."""
    total = NOTHING
    for start in range(0, len(chosen), _ROWS_TOGETHER):
        stop = min(start + _ROWS_TOGETHER, len(chosen))
        rows = widened(read_rows(uri, header, start, stop), dtype)
        wanted = chosen[start:stop][: len(rows)] & np.isfinite(rows).all(1)
        total = total.merged(moments_of(rows[wanted]))
    return total


def publish_statistics(
    home: str, total: Moments, clip_uri: str, clip_fingerprint: str, dtype: str
) -> EmbeddingInfo:
    """Writes the covariance to the folder `home`; returns what the manifest says. Of no vectors: InputError."""
    if not total.count:
        raise InputError(f"{home}: no embedding is in the split train, and so there are no statistics to "
                         "train with; give a set that has this split")  # fmt: skip
    covariance = total.covariance  # (E, E)
    stream = io.BytesIO()
    np.save(stream, covariance, allow_pickle=False)
    return EmbeddingInfo(
        clip_uri=clip_uri,
        clip_fingerprint=clip_fingerprint,
        embed_dim=len(total.mean),
        dtype=dtype,
        num_vectors=total.count,
        mean=tuple(total.mean.tolist()),
        std=tuple(np.sqrt(np.diagonal(covariance)).tolist()),
        norm=total.norms / total.count,
        covariance_sha256=storage.publish_bytes(storage.join(home, COVARIANCE), stream.getvalue()),
    )
