"""Embed a shard set with a CLIP: where the encoders and the data, which do not know each other, meet."""

from torch import Tensor

from dalle2_train import storage
from dalle2_train.data.embed import Embedded, Encode, embed_shards
from dalle2_train.data.manifest import ShardManifest
from dalle2_train.data.progress import Progress
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.encoders.loading import load_clip


def embed(
    source: str,
    to: str,
    clip: str,
    *,
    text_encodings: bool = True,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> ShardManifest:
    """Write the embeddings by the CLIP at `clip` of the shards at `source` to the folder `to`; it is resumable.

    progress: as in `embed_shards`. Errors: InputError as `load_clip` and `embed_shards`.
    """
    encoder = load_clip(clip)
    return embed_shards(
        source,
        to,
        _encode_with(encoder),
        clip_uri=storage.absolute(clip) if storage.exists(clip) else clip,  # a hub's name stays as it is
        clip_fingerprint=encoder.fingerprint,
        image_size=encoder.image_size,
        text_encodings=text_encodings,
        batch_size=batch_size,
        progress=progress,
    )


def _encode_with(encoder: ClipEncoder) -> Encode:
    def encode(images: Tensor, captions: list[str]) -> Embedded:
        text = encoder.encode_captions(captions)
        return Embedded(encoder.encode_image(images), text.text_embed, text.text_encodings, text.text_mask)

    return encode
