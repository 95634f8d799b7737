"""What the shapes of both priors have in common."""

from dataclasses import dataclass

from torch import nn

from dalle2_train.errors import InputError
from dalle2_train.networks.checks import check_dropout, check_positive
from dalle2_train.networks.text_encoder import TextEncoderConfig


@dataclass(frozen=True)
class PriorShape:
    """A Transformer over a caption; its width is num_heads × head_dim. Defaults are Karlo's."""

    embed_dim: int = 768
    """Width of CLIP's embeddings and of its text states."""
    num_text_tokens: int = 77
    """Context length L, of CLIP's text or of the own text encoder's."""
    depth: int = 20
    """Number of Transformer blocks."""
    num_heads: int = 32
    """Attention heads."""
    head_dim: int = 64
    """Width of an attention head."""
    dropout: float = 0.0
    """Dropout probability after attention and inside the MLP."""
    text_encoder: TextEncoderConfig | None = None
    """The paper's own text encoder, trained with the prior; None: CLIP's text states (Karlo's)."""

    def __post_init__(self) -> None:
        check_positive(self, "embed_dim", "num_text_tokens", "depth", "num_heads", "head_dim")
        check_dropout(self.dropout)
        own = self.text_encoder
        if own is not None and own.context_length != self.num_text_tokens:
            raise InputError(f"num_text_tokens {self.num_text_tokens} must be {own.context_length}, "
                             "text_encoder.context_length")  # fmt: skip

    @property
    def width(self) -> int:
        """Width D of the tokens."""
        return self.num_heads * self.head_dim

    @property
    def text_width(self) -> int:
        """Width S of the text's states."""
        return self.embed_dim if self.text_encoder is None else self.text_encoder.width


def without_text_encoder(network: nn.Module) -> nn.ModuleList:
    """A prior's other parts."""
    return nn.ModuleList(part for name, part in network.named_children() if name != "text_encoder")
