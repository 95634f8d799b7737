"""What the commands for manipulations share: sheets to files, and principal components of a set."""

import io

import numpy as np
import torch

from dalle2_train import storage
from dalle2_train.data.embeddings.merged import merge
from dalle2_train.data.embeddings.moments import NOTHING, moments_of
from dalle2_train.data.embeddings.sets import open_embeddings
from dalle2_train.data.samples.collect import collect
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.manipulations.components import Components, fit_components
from dalle2_train.generation.manipulations.sheet import Sheet

MAX_ENCODED = 2048
"""Pictures of shards that components are fitted to."""
_TOGETHER = 64


def write_sheet(sheet: Sheet, to: str) -> None:
    """Publishes the labelled grid as the PNG `to`."""
    picture = io.BytesIO()
    sheet.image().save(picture, format="PNG")
    storage.publish_bytes(to, picture.getvalue())


def components_of_embeddings(uri: str, clip: ClipEncoder) -> Components:
    """Of the train split of an embedded set, from its statistics. InputError where another CLIP made it."""
    embeddings = merge([open_embeddings(uri)])
    if embeddings.info.clip_fingerprint != clip.fingerprint:
        raise InputError(
            f"{uri} was embedded by the CLIP {embeddings.info.clip_fingerprint}, the models were trained with "
            f"{clip.fingerprint}; give embeddings of that CLIP"
        )
    return fit_components(torch.tensor(embeddings.info.mean), torch.from_numpy(embeddings.covariance()))


def components_of_shards(uri: str, clip: ClipEncoder) -> Components:
    """Of the first pictures of the train split of shards, embedded now. InputError where there are not two."""
    samples = collect(uri, "train", clip.image_size, limit=MAX_ENCODED)
    if len(samples) < 2:
        raise InputError(
            f"{uri}: the split train has {len(samples)}; components need 2 pictures and better hundreds"
        )
    total = NOTHING
    for start in range(0, len(samples), _TOGETHER):
        images = np.stack([sample.image for sample in samples[start : start + _TOGETHER]])
        embeds = clip.encode_image(torch.from_numpy(images).permute(0, 3, 1, 2))  # (B, E)
        total = total.merged(moments_of(embeds.cpu().numpy()))
    return fit_components(torch.from_numpy(total.mean), torch.from_numpy(total.covariance))
