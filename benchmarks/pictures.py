"""The same pictures by the library and by diffusers' UnCLIPPipeline, of one random unCLIP, with equal noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UnCLIPPipeline
from diffusers.schedulers import scheduling_unclip
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.pairs import DECODER, EMBED_DIM, PRIOR, TEXT_LENGTH, UPSAMPLER, randomise
from dalle2_train import storage
from dalle2_train.checkpoints import FileEntry, ModelManifest
from dalle2_train.checkpoints.manifest import publish_manifest
from dalle2_train.diffusion.objective import ObjectiveConfig
from dalle2_train.diffusion.schedule import ScheduleConfig
from dalle2_train.encoders import ClipConfig, build_clip, save_clip, train_tokenizer
from dalle2_train.export.diffusers_folder import write_folder
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pipeline import generate_stages
from dalle2_train.generation.unclip import Unclip
from dalle2_train.networks.decoder import Decoder
from dalle2_train.networks.prior import Prior
from dalle2_train.networks.upsampler import Upsampler

PROMPTS = ["a red heart", "the moon over the sea", "an old dog", "a small cat"]
STEPS = {"prior": 8, "decoder": 12, "upsampler": 7}
CONFIG = GenerationConfig(
    prior=PriorStageConfig(num_steps=STEPS["prior"]),
    # Karlo's 8 magnifies rounding, so that random weights draw no equal pictures any more.
    decoder=DecoderStageConfig(num_steps=STEPS["decoder"], guidance_scale=4.0),
    upsampler=UpsamplerStageConfig(num_steps=STEPS["upsampler"]),
)
_PARTS: dict[str, tuple[Callable[[], Any], ObjectiveConfig]] = {
    "prior": (partial(Prior, PRIOR), ObjectiveConfig("sample")),
    "decoder": (partial(Decoder, DECODER), ObjectiveConfig(learned_variance=True)),
    "upsampler": (partial(Upsampler, UPSAMPLER), ObjectiveConfig()),
}


def unclip_and_pipeline(folder: Path) -> tuple[Unclip, Any]:
    """The same random weights as ours and as diffusers'."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(PROMPTS, 600, TEXT_LENGTH)
    sizes = {"text_depth": 2, "text_heads": 4, "image_size": 32, "patch_size": 16, "vision_width": 64}
    clip = ClipConfig(EMBED_DIM, TEXT_LENGTH, 600, vision_depth=1, vision_heads=2, **sizes)
    save_clip(build_clip(clip, tokenizer), tokenizer, folder / "clip")
    models = [_write_part(folder, kind) for kind in _PARTS]
    unclip = load_unclip(models, clip=str(folder / "clip"))
    write_folder(unclip, folder / "diffusers", version("diffusers"))
    pipeline = UnCLIPPipeline.from_pretrained(str(folder / "diffusers"))
    pipeline.set_progress_bar_config(disable=True)
    return unclip, pipeline


def ours(unclip: Unclip) -> Tensor:
    """(B, 3, H, H) in [-1, 1]."""
    (stages,) = generate_stages(unclip, PROMPTS, 0, CONFIG)
    return stages.image


def theirs(pipeline: Any) -> Callable[[], Tensor]:
    """What draws (B, 3, H, H) in [-1, 1] from our noise, which it is handed; we draw it every time."""
    latents, of_steps = _noise()

    def draw() -> Tensor:
        queue: Iterator[Tensor] = iter(of_steps)
        # The schedulers offer no other way to hand them a step's noise.
        scheduling_unclip.randn_tensor = lambda *_, **__: next(queue)
        images = pipeline(
            prompt=PROMPTS,
            prior_num_inference_steps=STEPS["prior"],
            decoder_num_inference_steps=STEPS["decoder"],
            super_res_num_inference_steps=STEPS["upsampler"],
            prior_guidance_scale=CONFIG.prior.guidance_scale,
            decoder_guidance_scale=CONFIG.decoder.guidance_scale,
            output_type="np",
            **latents,
        ).images
        return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1

    return draw


def seconds(draw: Callable[[], object]) -> float:
    """Of one batch of pictures."""
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        draw()
    return time.perf_counter() - start


def _write_part(folder: Path, kind: str) -> str:
    build, objective = _PARTS[kind]
    network = randomise(build())
    place = folder / kind / "model.safetensors"
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, place)
    sections = {"network": network.config, "schedule": ScheduleConfig(), "objective": objective}
    files = {place.name: FileEntry(storage.sha256_file(place), place.stat().st_size)}
    config = {name: asdict(section) for name, section in sections.items()}
    publish_manifest(str(place.parent), ModelManifest(kind=kind, config=config, files=files))
    return str(place.parent)


def _noise() -> tuple[dict[str, Tensor], list[Tensor]]:
    """x_T of every stage by the pipeline's names, and the steps' noise in the order of its use."""
    draws = Draws(0, torch.arange(len(PROMPTS)))
    sides = {"decoder": DECODER.image_size, "upsampler": UPSAMPLER.high_size}
    shapes = {"prior": (EMBED_DIM,), **{stage: (3, side, side) for stage, side in sides.items()}}
    names = {"prior": "prior_latents", "decoder": "decoder_latents", "upsampler": "super_res_latents"}
    latents = {name: draws.initial(stage, shapes[stage]) for stage, name in names.items()}
    # The last step draws none.
    of_steps = [
        draws.of_step(stage, shapes[stage], step) for stage in names for step in range(STEPS[stage] - 1)
    ]
    return latents, of_steps
