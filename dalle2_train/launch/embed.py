"""Embed a shard set with a CLIP: where the encoders and the data, which do not know each other, meet."""

from functools import lru_cache

import torch
from torch import Tensor

from dalle2_train import storage
from dalle2_train.data.embed.embed import embed_shards, unpack_shards
from dalle2_train.data.embed.encoding import EmbedConfig, Embedded
from dalle2_train.data.embed.foreign import index_embeddings
from dalle2_train.data.embeddings.layout import EmbeddingManifest
from dalle2_train.data.progress import Progress
from dalle2_train.data.shards.locate import shard_uris
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import absolute_source, load_clip
from dalle2_train.launch.shard_map import shard_map


def embed(
    source: str,
    to: str,
    clip: str,
    *,
    dtype: str = "fp16",
    text_encodings: bool = False,
    batch_size: int = 64,
    max_faulty: float = 0.1,
    workers: int = 0,
    progress: Progress | None = None,
) -> EmbeddingManifest:
    """Write the embeddings by the CLIP at `clip` of the shards at `source` to the folder `to`; it is resumable.

    workers: Ray actors that embed a shard each; 0: this process. The others, and errors, as in `embed_shards`.
    """
    clip = absolute_source(clip)
    encode = ClipEncode(clip)
    encoder = encode.encoder
    config = EmbedConfig(encoder.fingerprint, encoder.image_size, dtype, text_encodings, batch_size)
    del encoder
    if workers:
        _load.cache_clear()  # the actors have theirs
    try:
        return embed_shards(
            storage.absolute(source),
            storage.absolute(to),
            encode,
            config,
            clip_uri=clip,
            max_faulty=max_faulty,
            map_parts=shard_map(workers),
            progress=progress,
        )
    finally:
        _load.cache_clear()


class ClipEncode:
    """Embeds with the CLIP at a URI, which every process that is handed this loads once, to its GPU if it has one."""

    def __init__(self, clip: str) -> None:
        self.clip = clip

    @property
    def encoder(self) -> ClipEncoder:
        """The CLIP, loaded when it is first wanted."""
        return _load(self.clip)

    def __call__(self, images: Tensor, captions: list[str]) -> Embedded:
        text = self.encoder.encode_captions(captions)
        return Embedded(
            self.encoder.encode_image(images), text.text_embed, text.text_encodings, text.text_mask
        )


@lru_cache(maxsize=1)
def _load(clip: str) -> ClipEncoder:
    return load_clip(clip).to("cuda" if torch.cuda.is_available() else "cpu")


def index_foreign(uri: str, clip: str, progress: Progress | None = None) -> EmbeddingManifest:
    """Take up the embeddings at `uri`, which the CLIP at `clip` made: clip-retrieval's folders, or members of tars.

    Errors: as `load_clip`, `index_embeddings` and `unpack_shards`.
    """
    clip = absolute_source(clip)
    encoder = load_clip(clip)
    take_up = unpack_shards if shard_uris(uri) else index_embeddings
    return take_up(uri, clip, encoder.fingerprint, encoder.embed_dim, progress)
