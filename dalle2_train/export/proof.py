"""Proves an exported diffusers folder: a fresh process loads it and has to draw our pictures from our noise."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dalle2_train import storage
from dalle2_train.errors import RefusedError
from dalle2_train.generation.load import Unclip
from dalle2_train.generation.pipeline import Draws, GenerationConfig, generate_stages

TOLERANCE = 1e-4
"""Largest difference of a pixel in [0, 1] that counts as rounding; a step of 8 bits is 4e-3."""

PROOF_CONFIG = GenerationConfig(prior_num_steps=25, decoder_num_steps=25, upsampler_num_steps=25)
"""Many steps: the first one multiplies rounding by √(ᾱ_before / ᾱ_T), 1300 for 25 steps and 7700 for 5."""

NUM_ATTEMPTS = 12
"""A pixel whose first predicted x_0 is not clipped keeps its multiplied rounding, so equal models may miss TOLERANCE
with unlucky noise; unequal ones never meet it. Hence a prompt is drawn again with other noise, and every difference
is told."""

_SCRIPT = Path(__file__).with_name("draw_with_diffusers.py")
_MINUTES = 60
_PACKAGES = ("dalle2-train", "diffusers", "transformers", "torch")


@dataclass(frozen=True)
class Proof:
    """What was drawn twice, and how far apart the two drawings are."""

    max_abs_diff: float
    """Over all pixels, in [0, 1], of each prompt's closest pair of pictures."""
    tolerance: float
    prompts: tuple[str, ...]
    attempts: tuple[tuple[float, ...], ...]
    """Of every pair of pictures: attempt by attempt (its number is the noise's seed), prompt by prompt."""
    config: GenerationConfig
    versions: dict[str, str]
    seconds: float
    """Of both drawings, the fresh processes' imports included."""


def prove(
    unclip: Unclip,
    folder: Path,
    prompts: Sequence[str],
    config: GenerationConfig = PROOF_CONFIG,
    num_attempts: int = NUM_ATTEMPTS,
) -> Proof:
    """Draws `prompts` with `unclip` and, in a fresh process, with the diffusers folder.

    Errors: RefusedError when the folder does not load there, or when some prompt's pictures differ by more than
    TOLERANCE at every attempt, each with other noise.
    """
    attempts: list[tuple[float, ...]] = []
    max_abs_diff = 1.0
    started = time.monotonic()
    for seed in range(num_attempts):
        ours = _draw(unclip, prompts, seed, config)  # (B, H, W, 3)
        theirs = _draw_afresh(folder, _request(prompts, config), _noise(unclip, len(prompts), seed, config))
        if ours.shape != theirs.shape:
            raise RefusedError(
                f"diffusers draws pictures of {tuple(theirs.shape)}, we of {tuple(ours.shape)}"
            )
        # NaN would pass every comparison; it counts as black against white.
        differences = (ours - theirs).abs().nan_to_num(nan=1.0).flatten(1)
        attempts.append(tuple(differences.amax(dim=1).tolist()))
        max_abs_diff = max(min(of_prompt) for of_prompt in zip(*attempts, strict=True))
        if max_abs_diff <= TOLERANCE:
            versions = {name: version(name) for name in _PACKAGES}
            seconds = round(time.monotonic() - started, 2)
            return Proof(max_abs_diff, TOLERANCE, tuple(prompts), tuple(attempts), config, versions, seconds)
    raise RefusedError(
        f"the exported folder draws other pictures than the models: they differ by {max_abs_diff:.2g}, allowed is "
        f"{TOLERANCE:.0e}; nothing was written"
    )


def _draw(unclip: Unclip, prompts: Sequence[str], seed: int, config: GenerationConfig) -> Tensor:
    """Our pictures (B, H, W, 3) in [0, 1]."""
    images = torch.cat([stages.image for stages in generate_stages(unclip, prompts, seed, config)])
    return (images * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _request(prompts: Sequence[str], config: GenerationConfig) -> dict[str, object]:
    """The arguments of UnCLIPPipeline.__call__."""
    return {
        "prompt": list(prompts),
        "prior_num_inference_steps": config.prior_num_steps,
        "decoder_num_inference_steps": config.decoder_num_steps,
        "super_res_num_inference_steps": config.upsampler_num_steps,
        "prior_guidance_scale": config.prior_guidance_scale,
        "decoder_guidance_scale": config.decoder_guidance_scale,
    }


def _noise(unclip: Unclip, num_prompts: int, seed: int, config: GenerationConfig) -> dict[str, Tensor]:
    """The noise of `generate_stages`, named so that the steps' noise sorts in the order of its use."""
    assert unclip.upsampler is not None
    small, large = unclip.decoder.network.config.image_size, unclip.upsampler.network.config.high_size
    stages = [
        ("prior", "prior_latents", (unclip.prior.network.config.embed_dim,), config.prior_num_steps),
        ("decoder", "decoder_latents", (3, small, small), config.decoder_num_steps),
        ("upsampler", "super_res_latents", (3, large, large), config.upsampler_num_steps),
    ]
    draws = Draws(seed, torch.arange(num_prompts))
    noise: dict[str, Tensor] = {}
    for order, (stage, latents, shape, num_steps) in enumerate(stages):
        noise[latents] = draws.initial(stage, shape)
        # The last step draws none.
        for step in range(num_steps - 1):
            noise[f"step-{order}-{step:04d}"] = draws.of_step(stage, shape, step)
    return noise


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
        # -P keeps this package's folder off the script's path.
        command = [sys.executable, "-P", str(_SCRIPT), str(folder), str(asked), str(given), str(drawn)]
        # The same number of threads: a folder must not be refused for what was set for this process only.
        settings = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        settings |= {"HF_HUB_OFFLINE": "1", "DIFFUSERS_VERBOSITY": "error", "TRANSFORMERS_VERBOSITY": "error"}
        try:
            result = subprocess.run(
                command, capture_output=True, text=True, timeout=60 * _MINUTES, env=os.environ | settings
            )
        except subprocess.TimeoutExpired as error:
            raise RefusedError(f"diffusers did not finish drawing within {_MINUTES} minutes") from error
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no message"]
            raise RefusedError(f"diffusers cannot load or run the exported folder: {lines[-1]}")
        return load_file(drawn)["images"]
