"""Joins a selection of samples with an embedded set."""

from __future__ import annotations

from dalle2_train.data.embeddings.alignment import align, paired
from dalle2_train.data.embeddings.reader import IMAGE_ALONE, WITH_TEXT, VectorReader
from dalle2_train.data.embeddings.sets import EmbeddingSet, open_embeddings
from dalle2_train.data.embeddings.source import EmbeddingSource
from dalle2_train.data.selection.selection import Selection
from dalle2_train.data.shards.manifest import ShardSet


def join_embeddings(
    shards: ShardSet, selection: Selection, uri: str, text_encodings: bool, captions: bool
) -> tuple[Selection, EmbeddingSource]:
    """The selected samples of `shards` that have an embedding at `uri`, and whence they are read.

    text_encodings: whether the text's embedding, encodings and mask are read too. captions: whether they come from
    the embeddings' metadata. Sets that don't match, or lack what is wanted: InputError.
    """
    found = shards if isinstance(shards, EmbeddingSet) else open_embeddings(uri)
    alignment = align(shards, found)
    reader = VectorReader(found, WITH_TEXT if text_encodings else IMAGE_ALONE)
    return paired(selection, alignment, shards), EmbeddingSource(alignment, reader, captions)
