"""Classifier-free guidance in one forward: the null condition's half of the batch, then the prompts'.

Legend: B prompts.
"""

import torch
from torch import Tensor

from dalle2_train.diffusion.guidance import guide
from dalle2_train.encoders.captions import Text


def both_halves(text: Text, null_text: Text, scale: float) -> Text:
    """What stands for no text (1), for every prompt, then the prompts' (2B); without guidance only these (B)."""
    if scale == 1:
        return text
    pairs = zip(null_text, text, strict=True)
    return type(text)(*(torch.cat([null.expand_as(given), given]) for null, given in pairs))


def repeated(text: Text, count: int) -> Text:
    """`text` (B) `count` times over (count·B)."""
    return type(text)(*(torch.cat([part] * count) for part in text)) if count > 1 else text


def twice(x_t: Tensor, t: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`x_t` (B, …) and `t` (B,) for both halves (2B); without guidance as they are."""
    return (x_t, t) if scale == 1 else (torch.cat([x_t, x_t]), torch.cat([t, t]))


def guided(prediction: Tensor, scale: float, num_guided: int | None = None, rescale: float = 0.0) -> Tensor:
    """The guided prediction (B, C, …) of both halves' (2B, C, …); see `guide`."""
    if scale == 1:
        return prediction
    uncond, cond = prediction.chunk(2)
    return guide(cond, uncond, scale, num_guided, rescale)
