"""Proves an exported diffusers folder: a fresh process loads it and has to draw our pictures from our noise."""

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from dalle2_train import storage
from dalle2_train.encoders.encoder import ClipEncoder
from dalle2_train.errors import RefusedError
from dalle2_train.export.afresh import run_afresh
from dalle2_train.export.drawings import of_pictures, of_prompts
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.unclip import Unclip

TOLERANCE = 1e-6
"""Largest difference of a pixel in [0, 1] that counts as rounding. Both draw in float64, whose own is 1e-16: the
sampler's first step multiplies it by up to √(ᾱ_before / ᾱ_T), 7700 for 5 steps, which in float32 can show in a picture
although the models are equal."""

PROOF_CONFIG = GenerationConfig(
    prior=PriorStageConfig(num_steps=5),
    decoder=DecoderStageConfig(num_steps=5),
    upsampler=UpsamplerStageConfig(num_steps=5),
)

_SCRIPT = Path(__file__).with_name("draw_with_diffusers.py")
_PACKAGES = ("dalle2-train", "diffusers", "transformers", "torch")


@dataclass(frozen=True)
class Proof:
    """What was drawn twice, and how far apart the two drawings are."""

    max_abs_diff: float
    """Over all pixels of all pictures, in [0, 1]."""
    tolerance: float
    prompts: tuple[str, ...]
    config: GenerationConfig
    versions: dict[str, str]
    seconds: float
    """Of both drawings, the fresh process's imports included."""


def prove(
    unclip: Unclip, folder: Path, prompts: Sequence[str], config: GenerationConfig = PROOF_CONFIG
) -> Proof:
    """Draws `prompts` in float64 with `unclip` and, in a fresh process, with the diffusers folder.

    Of an unCLIP without a prior, the image-variation pipeline's, variations of two pictures are drawn, and no prompts.
    It takes twice the models' memory in float64, half of it in each process.
    Errors: RefusedError when the folder does not load there, or when a pixel differs by more than TOLERANCE.
    """
    started = time.monotonic()
    exact = _in_float64(unclip)
    drawing = of_pictures(exact, config) if unclip.prior is None else of_prompts(exact, prompts, config)
    ours = drawing.images  # (B, H, W, 3)
    theirs = _draw_afresh(folder, drawing.request, drawing.given)  # (B, H, W, 3)
    if ours.shape != theirs.shape:
        raise RefusedError(f"diffusers draws pictures of {tuple(theirs.shape)}, we of {tuple(ours.shape)}")
    # NaN would pass every comparison; it counts as black against white.
    max_abs_diff = (ours - theirs).abs().nan_to_num(nan=1.0).max().item()
    if max_abs_diff > TOLERANCE:
        raise RefusedError(
            f"the exported folder draws other pictures than the models: they differ by {max_abs_diff:.2g}, allowed is "
            f"{TOLERANCE:.0e}; nothing was written"
        )
    versions = {name: version(name) for name in _PACKAGES}
    return Proof(
        max_abs_diff, TOLERANCE, tuple(prompts), config, versions, round(time.monotonic() - started, 2)
    )


def _in_float64(unclip: Unclip) -> Unclip:
    """A copy that computes in float64."""

    def widened(part: Any) -> Any:
        last = None if part.last is None else copy.deepcopy(part.last).double()
        return replace(part, network=copy.deepcopy(part.network).double(), last=last)

    clip = ClipEncoder(copy.deepcopy(unclip.clip.model).double(), unclip.clip.tokenizer, unclip.clip.pixels)
    return replace(
        unclip,
        clip=clip,
        prior=unclip.prior and widened(unclip.prior),
        decoder=widened(unclip.decoder),
        upsamplers=tuple(map(widened, unclip.upsamplers)),
    )


def _draw_afresh(folder: Path, request: dict[str, object], noise: dict[str, Tensor]) -> Tensor:
    """The pictures (B, H, W, 3) in [0, 1] that a process draws which knows only the folder."""
    with storage.local_staging() as scratch:
        asked, given, drawn = (
            scratch / "request.json",
            scratch / "noise.safetensors",
            scratch / "drawn.safetensors",
        )
        asked.write_text(json.dumps(request))
        save_file(noise, given)
        run_afresh(_SCRIPT, folder, asked, given, drawn)
        return load_file(drawn)["images"]
