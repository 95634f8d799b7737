"""CLIP's embeddings and text states on their way into the decoder, and the two forms in which that is saved.

B batch, E embedding, L text length, S width of the text's states, M = extra tokens + L context tokens, K context width,
D time width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dalle2_train.networks.whitening import Whitening, fold, unfold

_NULL = "learned_classifier_free_guidance_embeddings"
_MEAN, _MATRIX = "whitening.mean", "whitening.matrix"
# The layers that read the image embedding, or the null in its place.
_READERS = ("clip_image_embeddings_project_to_time_embeddings", "clip_extra_context_tokens_proj")
_READ = tuple(f"{layer}.{part}" for layer in _READERS for part in ("weight", "bias"))


class TextProjection(nn.Module):
    """CLIP's embeddings and text states → what the U-Net takes; the state_dict of diffusers' `UnCLIPTextProjModel`.

    In training it may read image embeddings through a `whitening`, whose buffers are then two more entries. The
    state_dict of a projection with one, or with another, or with none loads into any: it computes the same there.
    """

    whitening: Whitening | None

    def __init__(
        self, embed_dim: int, text_dim: int, context_dim: int, time_dim: int, num_extra_tokens: int
    ) -> None:
        super().__init__()
        self.num_extra_tokens = num_extra_tokens
        self.learned_classifier_free_guidance_embeddings = nn.Parameter(torch.zeros(embed_dim))
        self.embedding_proj = nn.Linear(text_dim, time_dim)
        self.clip_image_embeddings_project_to_time_embeddings = nn.Linear(embed_dim, time_dim)
        self.clip_extra_context_tokens_proj = nn.Linear(embed_dim, num_extra_tokens * context_dim)
        self.encoder_hidden_states_proj = nn.Linear(text_dim, context_dim)
        self.text_encoder_hidden_states_norm = nn.LayerNorm(context_dim)
        self.whitening = None
        self.register_load_state_dict_pre_hook(_rewrite_state)

    def image_embed_readers(self) -> list[nn.Linear]:
        """The layers that read the image embedding."""
        return [self.get_submodule(name) for name in _READERS]  # pyright: ignore[reportReturnType]

    def forward(
        self, image_embed: Tensor, text_embed: Tensor, text_encodings: Tensor, keep_image: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The context (B, M, K), extra tokens first, and the shift of the time vector (B, D).

        `image_embed` (B, E), `text_embed` (B, S), `text_encodings` (B, L, S), `keep_image` (B,) bool.
        """
        if self.whitening is not None:
            image_embed = self.whitening(image_embed)
        if keep_image is not None:
            null = self.learned_classifier_free_guidance_embeddings.to(image_embed.dtype)
            image_embed = torch.where(keep_image[:, None], image_embed, null)  # (B, E)
        to_time = self.clip_image_embeddings_project_to_time_embeddings
        time_shift = to_time(image_embed) + self.embedding_proj(text_embed)  # (B, D)
        # The linear's outputs lie as (K, extra tokens), not the other way round: Karlo's weights expect it.
        extra = self.clip_extra_context_tokens_proj(image_embed).unflatten(1, (-1, self.num_extra_tokens))
        text = self.encoder_hidden_states_proj(text_encodings)  # (B, L, K)
        text = self.text_encoder_hidden_states_norm(text)
        return torch.cat([extra.transpose(1, 2), text], dim=1), time_shift


def plain_state(state: Mapping[str, Tensor], prefix: str = "text_proj.") -> dict[str, Tensor]:
    """A state_dict of a decoder in which no image embedding is whitened; one that is so already stays as it is."""
    if prefix + _MEAN not in state:
        return dict(state)
    plain = {name: value for name, value in state.items() if not name.startswith(f"{prefix}whitening.")}
    mean, matrix, null = (state[prefix + name] for name in (_MEAN, _MATRIX, _NULL))
    for layer in _READERS:
        names = [f"{prefix}{layer}.weight", f"{prefix}{layer}.bias"]
        plain |= zip(names, fold(state[names[0]], state[names[1]], mean, matrix), strict=True)
    unwhitened = torch.linalg.solve(matrix.double(), null.double()) + mean.double()  # (E,)
    return plain | {prefix + _NULL: unwhitened.to(null)}


def _whitened_state(state: Mapping[str, Tensor], whitening: Whitening, prefix: str) -> dict[str, Tensor]:
    """The inverse of `plain_state`."""
    mean, matrix, null = whitening.mean, whitening.matrix, state[prefix + _NULL]
    white = {**state, prefix + _MEAN: mean, prefix + _MATRIX: matrix}
    for layer in _READERS:
        names = [f"{prefix}{layer}.weight", f"{prefix}{layer}.bias"]
        white |= zip(names, unfold(state[names[0]], state[names[1]], mean, matrix), strict=True)
    whitened = (null.double() - mean.to(null.device).double()) @ matrix.to(null.device).double()  # (E,)
    return white | {prefix + _NULL: whitened.to(null)}


def _rewrite_state(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before loading: the state as it is for this module, with its own whitening or without any.

    One that does not fit is left as it is, for load_state_dict to say so.
    """
    assert isinstance(module, TextProjection)
    own = module.state_dict()
    needed = {name: own[name].shape for name in (_NULL, *_READ)}
    if prefix + _MEAN in state:
        needed |= {_MEAN: own[_NULL].shape, _MATRIX: 2 * own[_NULL].shape}
    if any(prefix + name not in state or state[prefix + name].shape != needed[name] for name in needed):
        return
    plain = plain_state(state, prefix)
    wanted = plain if module.whitening is None else _whitened_state(plain, module.whitening, prefix)
    state.clear()
    state |= wanted
