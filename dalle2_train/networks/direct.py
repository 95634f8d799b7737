"""The direct baseline: text tokens → Transformer encoder–decoder with one learned query per patch → pixels.

What introductions to DALL·E 2 show in twenty lines, as a floor: no CLIP embedding, no noise, one forward.
B batch, L text length, P patches, p pixels a side of a patch, D width, H W pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dalle2_train.errors import InputError
from dalle2_train.networks.checks import check_positive
from dalle2_train.networks.init import zero_init
from dalle2_train.networks.text_encoder import TextEncoder, TextEncoderConfig
from dalle2_train.networks.transformer import CrossAttentionBlock, init_transformer


@dataclass(frozen=True)
class DirectConfig:
    """The network's shape. Its width is the text encoder's."""

    text_encoder: TextEncoderConfig
    """Its context length is the tokenizer's."""
    image_size: int = 64
    """Side of the image, in pixels."""
    patch_size: int = 8
    """Side of the patch that one query stands for, in pixels; divides image_size."""
    depth: int = 6
    """Blocks over the patches; each looks at the encoded text."""
    num_heads: int = 8
    """Attention heads of these blocks; divides the width."""

    def __post_init__(self) -> None:
        check_positive(self, "image_size", "patch_size", "depth", "num_heads")
        if self.image_size % self.patch_size:
            raise InputError(f"patch_size {self.patch_size} must divide image_size {self.image_size}")
        if self.width % self.num_heads:
            raise InputError(f"num_heads {self.num_heads} must divide text_encoder.width {self.width}")

    @property
    def width(self) -> int:
        """Width D of text and patches."""
        return self.text_encoder.width


class Direct(nn.Module):
    """Predicts the pixels that a caption has on average, which is all that a squared error asks for."""

    def __init__(self, config: DirectConfig) -> None:
        super().__init__()
        self.config = config
        width, num_patches = config.width, (config.image_size // config.patch_size) ** 2
        self.text_encoder = TextEncoder(config.text_encoder)
        self.patch_queries = nn.Parameter(torch.zeros(num_patches, width))
        self.transformer_blocks = nn.ModuleList(
            CrossAttentionBlock(width, config.num_heads) for _ in range(config.depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.to_pixels = nn.Linear(width, 3 * config.patch_size**2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """`init_transformer`; the last layer is zero, so that the first prediction is grey."""
        init_transformer(self.transformer_blocks, self.config.depth)
        nn.init.normal_(self.patch_queries, std=0.02)
        zero_init(self.to_pixels)

    @property
    def blocks(self) -> list[nn.Module]:
        """The modules of about equal size that sharding or recomputation wraps one by one."""
        return [*self.text_encoder.blocks, *self.transformer_blocks]

    def forward(self, token_ids: Tensor, text_mask: Tensor) -> Tensor:
        """`token_ids` (B, L) int64, `text_mask` (B, L) bool, True where there is text → (B, 3, H, W), about [-1, 1]."""
        text = self.text_encoder(token_ids, text_mask).states  # (B, L, D)
        patches = self.patch_queries.expand(len(text), -1, -1)  # (B, P, D)
        for block in self.transformer_blocks:
            patches = block(patches, None, text, None)  # (B, P, D)
        pixels = self.to_pixels(self.norm_out(patches))  # (B, P, 3·p·p)
        return assemble(pixels, self.config.patch_size)  # (B, 3, H, W)


def assemble(pixels: Tensor, patch_size: int) -> Tensor:
    """(B, P, 3·p·p), the square of patches row by row, of each the channels first → (B, 3, H, W)."""
    side = round(pixels.shape[1] ** 0.5)
    return F.pixel_shuffle(pixels.transpose(1, 2).unflatten(2, (side, side)), patch_size)
