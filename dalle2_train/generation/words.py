"""What the stages are told of the prompts: CLIP's features, the same for all, or tokens for an encoder of their own.

Legend: B prompts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dalle2_train.encoders.captions import Text
from dalle2_train.generation.unclip import Unclip
from dalle2_train.training.texts import caption_reader


class Words(NamedTuple):
    """What one stage is told."""

    text: Text
    """Of the prompts (B)."""
    null_text: Text
    """Of no text (1), for guidance."""


def read_prompts(unclip: Unclip, prompts: Sequence[str]) -> tuple[Words, Words]:
    """What the prior, if there is one, and the decoder are told; read once where both read the same.

    Both with CLIP's text embedding, which prompts are compared by, or may stand in for an image embedding.
    """
    parts = (unclip.prior or unclip.decoder, unclip.decoder)
    readers = [replace(caption_reader(unclip.clip, part.network), with_text_embed=True) for part in parts]
    told = {reader: Words(reader.read(list(prompts)), reader.null_text()) for reader in set(readers)}
    return told[readers[0]], told[readers[1]]
