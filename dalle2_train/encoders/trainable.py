"""CLIP as it is trained: its loss's two embeddings, and no 0-dimensional parameter.

Legend: B batch, L context length, E embedding, S image size.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from transformers import CLIPModel

LOGIT_SCALE = "logit_scale"


class ClipOutput(NamedTuple):
    """What the contrastive loss needs."""

    image_embed: Tensor
    """(B, E), unit length."""
    text_embed: Tensor
    """(B, E), unit length."""
    scale: Tensor
    """(1,) inverse temperature, exp(logit_scale)."""


class ClipForTraining(nn.Module):
    """The parts of a CLIPModel under CLIPModel's own names; only `logit_scale` has shape (1,).

    `fully_shard` refuses 0-dimensional parameters. `to_clip_state` gives the shape back for saving, and
    `load_state_dict` takes either.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.text_model = clip.text_model
        self.vision_model = clip.vision_model
        self.text_projection = clip.text_projection
        self.visual_projection = clip.visual_projection
        self.logit_scale = nn.Parameter(clip.logit_scale.detach().clone().reshape(1))
        self.register_load_state_dict_pre_hook(_accept_clip_state)

    def forward(self, pixel_values: Tensor, token_ids: Tensor) -> ClipOutput:
        """Pixels (B, 3, S, S) and token ids (B, L) → unit embeddings (B, E) and the inverse temperature.

        The temperature is read here, not by the loss, because a sharded parameter is whole only in `forward`.
        """
        image = self.visual_projection(self.vision_model(pixel_values=pixel_values).pooler_output)  # (B, E)
        text = self.text_projection(self.text_model(input_ids=token_ids).pooler_output)  # (B, E)
        normalize = nn.functional.normalize
        return ClipOutput(normalize(image, dim=-1), normalize(text, dim=-1), self.logit_scale.exp())


def to_clip_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `ClipForTraining` state as CLIPModel names and shapes it."""
    return {name: tensor.reshape(()) if name == LOGIT_SCALE else tensor for name, tensor in state.items()}


def _accept_clip_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    name = prefix + LOGIT_SCALE
    if name in state:
        state[name] = state[name].reshape(1)
