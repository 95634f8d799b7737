"""The direct baseline, ready to draw: captions → pictures in one forward.

Legend: B prompts, H W picture size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dalle2_train.checkpoints import open_model
from dalle2_train.checkpoints.manifest import read_manifest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import InputError
from dalle2_train.generation.clip import open_clip
from dalle2_train.generation.folders import is_clip_folder, only_one
from dalle2_train.generation.part import open_network
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.text_to_image import Progress
from dalle2_train.generation.unclip import TrainedPart
from dalle2_train.networks.direct import Direct, DirectConfig

KIND = "direct"


@dataclass(frozen=True)
class DirectModel:
    """All that turns text into pictures without prior or diffusion. Of the CLIP it needs the tokenizer alone."""

    clip: ClipEncoder
    clip_uri: str
    direct: TrainedPart[Direct]

    @property
    def parts(self) -> dict[str, TrainedPart]:
        """Its only part, by name."""
        return {KIND: self.direct}

    @property
    def image_size(self) -> int:
        """Pixels a side of the pictures it makes."""
        return self.direct.network.config.image_size


def is_direct(folder: str) -> bool:
    """Is the run, checkpoint or model folder a direct baseline's?"""
    return not is_clip_folder(folder) and read_manifest(resolve_model(folder)).kind == KIND


def load_direct(folders: Sequence[str], clip: str | None = None) -> DirectModel:
    """The direct baseline of `folders`, one of them and if any its CLIP's; `clip` as in `load_unclip`.

    Errors: InputError for anything beside it, or for another CLIP; RefusedError for damaged files.
    """
    models = [folder for folder in folders if not is_clip_folder(folder)]
    for folder in folders:
        if is_clip_folder(folder):
            clip = only_one("clip", clip, folder)
    opened = [open_model(model) for model in models]
    if others := [manifest.kind for manifest, _ in opened if manifest.kind != KIND]:
        raise InputError(
            f"a direct baseline is whole by itself, but a {others[0]} was given too; leave it out"
        )
    if len(opened) > 1:
        raise InputError(f"two models of kind {KIND!r} were given, {models[1]} is the second; leave one out")
    manifest, state = opened[0]
    encoder, clip_uri = open_clip(clip, {KIND: manifest})
    network = open_network(manifest, state, DirectConfig, Direct)
    return DirectModel(encoder, clip_uri, TrainedPart(manifest, network))


@torch.inference_mode()
def draw_direct(
    model: DirectModel, prompts: Sequence[str], batch_size: int, *, progress: Progress | None = None
) -> Tensor:
    """One picture per prompt, (B, 3, H, W) uint8; nothing about it is random. No prompts: InputError."""
    if not prompts:
        raise InputError("no prompt was given; give at least one")
    starts = range(0, len(prompts), batch_size)
    device = model.direct.network.patch_queries.device
    images = []
    for done, start in enumerate(starts, 1):
        tokens = model.clip.tokenize(list(prompts[start : start + batch_size]))
        images.append(to_uint8(model.direct.network(*(part.to(device) for part in tokens))))
        if progress is not None:
            progress(done, len(starts))
    return torch.cat(images)
