"""What a batch says in words, to the prior and the decoder.

Legend: B batch, L text length, E embedding.
"""

from collections.abc import Callable

from torch import Tensor

from dalle2_train.data.stream.batches import DecoderBatch, DecoderTokenBatch, PriorBatch, PriorTokenBatch
from dalle2_train.encoders.captions import CaptionReader, Text
from dalle2_train.encoders.encoder import ClipEncoder, TextFeatures
from dalle2_train.networks.ar_prior import ArPrior
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.prior import Prior

EncodeText = Callable[[Tensor, Tensor], Text]
"""(token ids (B, L), mask (B, L)) → what the network is told, where the tokens are."""


def caption_reader(clip: ClipEncoder, network: Prior | ArPrior | Decoder) -> CaptionReader:
    """How captions reach `network`."""
    own = network.config.text_encoder
    if own is None:
        return CaptionReader(clip)
    return CaptionReader(clip, own.context_length, with_text_embed=not isinstance(network, Decoder))


def encode_beside_batches(reader: CaptionReader) -> EncodeText:
    """`reader.encode`, its CLIP moved to wherever the batches are: it is the training's own."""

    def encode(token_ids: Tensor, text_mask: Tensor) -> Text:
        if reader.clip.device != token_ids.device:
            reader.clip.to(token_ids.device)
        return reader.encode(token_ids, text_mask)

    return encode


def text_of(
    batch: PriorBatch | PriorTokenBatch | DecoderBatch | DecoderTokenBatch, encode_text: EncodeText | None
) -> Text:
    """As it is stored, or made of the tokens by `encode_text`, which such batches need."""
    if isinstance(batch, PriorBatch | DecoderBatch):
        return TextFeatures(batch.text_embed, batch.text_encodings, batch.text_mask)
    assert encode_text is not None, "a batch of tokens needs a reader of captions"
    return encode_text(batch.token_ids, batch.text_mask)
