"""Takes up embeddings that another program wrote (clip-retrieval's folders): what they are, said in our manifest.

N rows, E embedding.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from dalle2_train import storage
from dalle2_train.data.embeddings import layout, metadata
from dalle2_train.data.embeddings.columns import DTYPES, Header, read_header
from dalle2_train.data.embeddings.layout import EmbeddingManifest, Part, file_name
from dalle2_train.data.embeddings.moments import NOTHING, Moments
from dalle2_train.data.embeddings.statistics import moments_of_file, publish_statistics
from dalle2_train.data.progress import Progress, on_stderr
from dalle2_train.errors import InputError

_DTYPES = {dtype: name for name, dtype in DTYPES.items() if dtype.kind == "f"}


def index_embeddings(
    uri: str, clip_uri: str, clip_fingerprint: str, embed_dim: int, progress: Progress | None = None
) -> EmbeddingManifest:
    """Reads the embeddings in the folder `uri` once and publishes their manifest and statistics there.

    clip_…: the CLIP that made them, as the user says; its embeddings have `embed_dim` numbers. Run again, it reads
    them again. Embeddings that `shards embed` made, none at all, or others than such a CLIP's: InputError.
    """
    home = storage.absolute(uri)
    if layout.has_embeddings(home) and layout.load(home).of is not None:
        raise InputError(f"{uri}: its embeddings were made by `shards embed`, which has indexed them already; "
                         "train on them as they are")  # fmt: skip
    names = _part_names(home)
    if not names:
        raise InputError(f"{uri}: holds no {file_name(layout.IMAGE_EMBED, '*')}; give a folder of embeddings")
    progress = progress or on_stderr("index", "parts")
    dtype, parts, total = None, [], NOTHING
    for name in names:
        header = read_header(storage.join(home, file_name(layout.IMAGE_EMBED, name)))
        dtype = dtype or header.dtype
        if header.dtype != dtype or dtype not in _DTYPES or header.shape[1:] != (embed_dim,):
            name = file_name(layout.IMAGE_EMBED, name)
            raise InputError(f"{home}/{name}: its rows are {header.shape[1:]} of {header.dtype}, not ({embed_dim},) of "
                             "float16 or float32 as the CLIP's; give the --clip that made them")  # fmt: skip
        part, moments = _read_part(home, name, header)
        parts.append(part)
        total = total.merged(moments)
        progress(len(parts), len(names))
    assert dtype is not None
    info = publish_statistics(home, total, clip_uri, clip_fingerprint, _DTYPES[dtype])
    manifest = EmbeddingManifest(tuple(parts), info)
    layout.publish(manifest, home)
    return manifest


def _part_names(home: str) -> list[str]:
    prefix, suffix = f"{layout.IMAGE_EMBED}_", ".npy"
    files = [
        file.rsplit("/", 1)[-1]
        for file in storage.list_folder(storage.join(home, layout.IMAGE_EMBED), suffix)
    ]
    names = [file.removeprefix(prefix).removesuffix(suffix) for file in files if file.startswith(prefix)]
    return sorted(names, key=lambda name: (len(name), name))  # clip-retrieval does not pad every number


def _read_part(home: str, name: str, header: Header) -> tuple[Part, Moments]:
    num_rows = header.shape[0]
    uris = {
        column: storage.join(home, file_name(column, name))
        for column in (layout.IMAGE_EMBED, layout.TEXT_EMBED, layout.METADATA)
    }
    there = {column: uri for column, uri in uris.items() if storage.exists(uri)}
    if layout.METADATA not in there:
        raise InputError(
            f"{uris[layout.METADATA]}: is not there, and nothing else says whose the embeddings are; give it too"
        )
    index = metadata.read_index(uris[layout.METADATA], name, num_rows)
    trained = np.array(index.splits, object) == "train"
    moments = moments_of_file(uris[layout.IMAGE_EMBED], header, _DTYPES[header.dtype], trained)
    files = {column: storage.sha256_file(uri) for column, uri in there.items()}
    return Part(name, num_rows, dict(sorted(Counter(index.splits).items())), files), moments
