"""Captions on their way to the prior and the decoder: the frozen CLIP's features, or tokens where they have an encoder.

Legend: B batch, L context length, E embedding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dalle2_train.encoders.encoder import ClipEncoder, TextFeatures
from dalle2_train.encoders.tokenizer import cut_tokens, tokenize


class TextTokens(NamedTuple):
    """What a network with a text encoder of its own is told of a caption."""

    text_embed: Tensor
    """(B, E) CLIP's projected text embedding, not normalised; (B, 0) where the network reads none."""
    token_ids: Tensor
    """(B, L) int64, by CLIP's tokenizer, of the own encoder's context length."""
    text_mask: Tensor
    """(B, L) bool, true where a token stands."""


Text = TextFeatures | TextTokens


@dataclass(frozen=True)
class CaptionReader:
    """Captions → what a network is told of them."""

    clip: ClipEncoder
    own_length: int | None = None
    """Context length of the network's own text encoder, at least CLIP's; None: it reads CLIP's states."""
    with_text_embed: bool = True
    """Whether a network with its own encoder reads CLIP's text embedding too, as the prior does."""

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) and mask (B, L)."""
        return tokenize(self.clip.tokenizer, captions, self.own_length)

    def encode(self, token_ids: Tensor, text_mask: Tensor) -> Text:
        """What the network is told; CLIP runs where it is, in its own precision whatever autocast says."""
        if self.own_length is None:
            return self._by_clip(token_ids, text_mask)
        if not self.with_text_embed:
            return TextTokens(
                token_ids.new_zeros(len(token_ids), 0, dtype=torch.float32), token_ids, text_mask
            )
        clip_ids = cut_tokens(self.clip.tokenizer, token_ids, text_mask)
        clip_mask = text_mask[:, : clip_ids.shape[1]]
        return TextTokens(self._by_clip(clip_ids, clip_mask).text_embed, token_ids, text_mask)

    def read(self, captions: list[str]) -> Text:
        """`tokenize`, then `encode`, where CLIP is."""
        token_ids, text_mask = self.tokenize(captions)
        return self.encode(token_ids.to(self.clip.device), text_mask.to(self.clip.device))

    def null_text(self) -> Text:
        """What stands for no text (B=1), in guidance and in condition dropout: the empty caption; to an own encoder
        nothing but padding, as in GLIDE."""
        empty = self.read([""])
        if isinstance(empty, TextFeatures):
            return empty
        return empty._replace(text_mask=torch.zeros_like(empty.text_mask))

    def _by_clip(self, token_ids: Tensor, text_mask: Tensor) -> TextFeatures:
        with torch.autocast(token_ids.device.type, enabled=False):
            return self.clip.encode_text(token_ids, text_mask)
