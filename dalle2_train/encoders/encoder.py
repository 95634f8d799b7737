"""The frozen CLIP: captions and pictures to embeddings, exactly as diffusers' UnCLIPPipeline asks for them.

Legend: B batch, L context length, E embedding, H W picture size.
"""

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer

from dalle2_train.encoders.clip import image_size, text_config
from dalle2_train.encoders.fingerprint import clip_fingerprint, text_fingerprint
from dalle2_train.encoders.pixels import CLIP_PIXELS, PixelStatistics, to_pixel_values
from dalle2_train.encoders.tokenizer import tokenize
from dalle2_train.errors import InputError


class TextFeatures(NamedTuple):
    """What the prior and the decoder know of a caption."""

    text_embed: Tensor
    """(B, E) CLIP's projected text embedding, not normalised."""
    text_encodings: Tensor
    """(B, L, E) the last hidden states."""
    text_mask: Tensor
    """(B, L) bool, true where a token stands."""


class ClipEncoder:
    """A CLIP in eval mode without gradients; see `load_clip`. Runs on the device it was moved to by `to`.

    One that came with a diffusers text-to-image folder has a text half alone: whatever asks it for pictures raises
    InputError.
    """

    def __init__(
        self,
        model: CLIPModel | CLIPTextModelWithProjection,
        tokenizer: CLIPTokenizer,
        pixels: PixelStatistics = CLIP_PIXELS,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.pixels = pixels

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over sizes, weights, tokenizer and pixel statistics; of a text half alone, `text_fingerprint`."""
        if not isinstance(self.model, CLIPModel):
            return self.text_fingerprint
        return clip_fingerprint(self.model.config, self.model.state_dict(), self.tokenizer, self.pixels)

    @cached_property
    def text_fingerprint(self) -> str:
        """Hex SHA-256 of the text half: what was made with that alone fits every CLIP that has it."""
        config = text_config(self.model.config)
        return text_fingerprint(config, self.embed_dim, self.model.state_dict(), self.tokenizer)

    def answers_to(self, fingerprint: str) -> bool:
        """Is this the CLIP of that fingerprint, or one whose text half has it?"""
        return fingerprint == self.fingerprint or fingerprint == self.text_fingerprint

    @property
    def sees_pictures(self) -> bool:
        """False of a text half alone."""
        return isinstance(self.model, CLIPModel)

    def check_sees_pictures(self) -> None:
        """Errors: InputError where this is a text half alone."""
        self._whole()

    @property
    def embed_dim(self) -> int:
        """E."""
        return text_config(self.model.config).hidden_size

    @property
    def context_length(self) -> int:
        """L."""
        return self.tokenizer.model_max_length

    @property
    def image_size(self) -> int:
        """Pixels a side that the vision tower sees."""
        return image_size(self._whole().config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.text_projection.weight.device

    def to(self, device: torch.device | str) -> "ClipEncoder":
        """Move the weights; returns self."""
        self.model.to(device)  # type: ignore[arg-type]
        return self

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B, L) long and mask (B, L) bool."""
        return tokenize(self.tokenizer, captions)

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) → the projected image embedding (B, E), not normalised."""
        model = self._whole()
        pixel_values = to_pixel_values(image.to(self.device), self.image_size, self.pixels)
        pooled = model.vision_model(pixel_values=pixel_values).pooler_output  # (B, width)
        return model.visual_projection(pooled)  # (B, E)

    @torch.no_grad()
    def encode_text(self, token_ids: Tensor, text_mask: Tensor) -> TextFeatures:
        """Token ids (B, L) and their mask (B, L) → features; the mask is passed through.

        The text tower is causal and gets no padding mask, as in UnCLIPPipeline: what follows the end token is
        never seen by what precedes it, and is masked in the prior and the decoder.
        """
        hidden = self.model.text_model(input_ids=token_ids.to(self.device))
        text_embed = self.model.text_projection(hidden.pooler_output)  # (B, E)
        return TextFeatures(text_embed, hidden.last_hidden_state, text_mask.to(self.device))

    def encode_captions(self, captions: list[str]) -> TextFeatures:
        """`tokenize`, then `encode_text`."""
        return self.encode_text(*self.tokenize(captions))

    def _whole(self) -> CLIPModel:
        if not isinstance(self.model, CLIPModel):
            raise InputError(
                "this CLIP has no image tower, for it came with a diffusers text-to-image folder; give the whole CLIP: "
                "its Hugging Face folder, or what is imported from an image-variation folder"
            )
        return self.model
