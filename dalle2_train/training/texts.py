"""What a batch says in words, to the prior and the decoder.

Legend: B batch, L text length, E embedding.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dalle2_train.data.stream.batches import DecoderBatch, DecoderTokenBatch, PriorBatch, PriorTokenBatch
from dalle2_train.encoders.encoder import ClipEncoder, TextFeatures

EncodeText = Callable[[Tensor, Tensor], TextFeatures]
"""(token ids (B, L), mask (B, L)) → features, by the frozen CLIP."""


def frozen_text_encoder(clip: ClipEncoder) -> EncodeText:
    """The CLIP's text tower, on the tokens' device and in the weights' precision whatever autocast says."""

    def encode(token_ids: Tensor, text_mask: Tensor) -> TextFeatures:
        if clip.device != token_ids.device:
            clip.to(token_ids.device)
        with torch.autocast(token_ids.device.type, enabled=False):
            return clip.encode_text(token_ids, text_mask)

    return encode


def text_of(
    batch: PriorBatch | PriorTokenBatch | DecoderBatch | DecoderTokenBatch, encode_text: EncodeText | None
) -> TextFeatures:
    """As it is stored, or made of the tokens by `encode_text`, which such batches need."""
    if isinstance(batch, PriorBatch | DecoderBatch):
        return TextFeatures(batch.text_embed, batch.text_encodings, batch.text_mask)
    assert encode_text is not None, "a batch of tokens needs the frozen CLIP"
    return encode_text(batch.token_ids, batch.text_mask)
