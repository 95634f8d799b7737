"""What is known of a training's data before any of it is read, be it one set or a mixture."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass

from dalle2_train.data.embeddings.merged import Embeddings, merge
from dalle2_train.data.embeddings.sets import EmbeddingSet, open_data, open_embeddings
from dalle2_train.data.stream.mixture import is_mixture, mixture_of
from dalle2_train.errors import InputError


@dataclass(frozen=True)
class DataSummary:
    """Of all sources together."""

    digest: str
    """The identity of the data; a mixture's weights are part of it."""
    splits: dict[str, int]
    """Split → samples."""
    has_pictures: bool
    """False where a source is embeddings alone."""
    sets: tuple[str, ...]
    """URIs of the sources' shards, which may have changed since they were indexed."""


def summarize(uri: str) -> DataSummary:
    """Of the set or mixture at `uri`; a manifest that is not there is made now. What is no data: InputError."""
    sources = mixture_of(uri).sources
    opened = [open_data(source.uri) for source in sources]
    splits: Counter[str] = Counter()
    for found in opened:
        splits.update(found.manifest.count())
    if is_mixture(uri):
        parts = [
            f"{s.name} {s.weight} {found.manifest.digest}" for s, found in zip(sources, opened, strict=True)
        ]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    else:
        digest = opened[0].manifest.digest
    shards = [s.uri for s, found in zip(sources, opened, strict=True) if not isinstance(found, EmbeddingSet)]
    return DataSummary(digest, dict(sorted(splits.items())), len(shards) == len(sources), tuple(shards))


def summarize_embeddings(uri: str, embeddings: str | None) -> Embeddings:
    """Those of the set or mixture at `uri`; `embeddings`: where those of one set are. None, or several CLIPs':
    InputError."""
    if embeddings is not None and is_mixture(uri):
        raise InputError(
            f"--embeddings {embeddings}: {uri} is a mixture; name the embeddings of each source in it"
        )
    return merge(
        [open_embeddings(source.embeddings or embeddings or source.uri) for source in mixture_of(uri).sources]
    )
