"""The embeddings of all sources of a training as one: by one CLIP, with the statistics of all their vectors.

E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from dalle2_train.data.embeddings.layout import EmbeddingInfo, read_covariance
from dalle2_train.data.embeddings.moments import Moments
from dalle2_train.data.embeddings.sets import EmbeddingSet
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class Embeddings:
    """What a training knows of its vectors."""

    info: EmbeddingInfo
    """Of several sets: the first one's, with the statistics of all."""
    has_text_encodings: bool
    """Whether all have them."""
    sets: tuple[EmbeddingSet, ...]

    def covariance(self) -> NDArray[np.float64]:
        """(E, E) that of the train split's image embeddings. Missing: InputError; damaged: RefusedError."""
        if len(self.sets) == 1:
            return read_covariance(self.sets[0].home, self.info)
        return _moments(self.sets).covariance


def merge(sets: Sequence[EmbeddingSet]) -> Embeddings:
    """Sets by different CLIPs, or of which one is damaged: InputError, RefusedError."""
    first, *others = (found.embeddings.info for found in sets)
    for found, info in zip(sets[1:], others, strict=True):
        if (info.clip_fingerprint, info.embed_dim) != (first.clip_fingerprint, first.embed_dim):
            raise InputError(f"{found.home}: embedded by the CLIP {info.clip_uri} ({info.clip_fingerprint}), but "
                             f"{sets[0].home} by {first.clip_uri} ({first.clip_fingerprint}); embed all sources "
                             "by one CLIP")  # fmt: skip
    if others:
        total = _moments(sets)
        std = np.sqrt(np.diagonal(total.covariance))
        first = replace(
            first,
            num_vectors=total.count,
            mean=tuple(total.mean.tolist()),
            std=tuple(std.tolist()),
            norm=total.norms / total.count,
        )
    encoded = all(found.embeddings.has_text_encodings for found in sets)
    return Embeddings(first, encoded, tuple(sets))


def _moments(sets: Sequence[EmbeddingSet]) -> Moments:
    """Of the vectors of all sets: each counts as often as it has samples, whatever the mixture's weights."""
    return reduce(Moments.merged, map(_moments_of, sets))


def _moments_of(found: EmbeddingSet) -> Moments:
    info = found.embeddings.info
    products = read_covariance(found.home, info) * info.num_vectors
    return Moments(info.num_vectors, np.array(info.mean), products, info.norm * info.num_vectors)
