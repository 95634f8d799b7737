"""Run as a script in a fresh process: draws the proof's pictures in float64 with nothing but diffusers and the folder.

usage: draw_with_diffusers.py FOLDER REQUEST.json NOISE.safetensors PICTURE.safetensors

It imports nothing of this package, so that the folder is all that it can know of the models.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UnCLIPPipeline
from diffusers.schedulers import scheduling_unclip
from safetensors import safe_open
from safetensors.torch import load_file, save_file

# Part → its weights file; a name that the file lacks would be initialised at random, with no more than a warning.
_WEIGHTS = {
    "prior": "diffusion_pytorch_model.safetensors",
    "decoder": "diffusion_pytorch_model.safetensors",
    "text_proj": "diffusion_pytorch_model.safetensors",
    "super_res_first": "diffusion_pytorch_model.safetensors",
    "super_res_last": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def main(folder: Path, request: Path, noise: Path, picture: Path) -> None:
    pipeline = UnCLIPPipeline.from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    for part, file in _WEIGHTS.items():
        check_names(part, getattr(pipeline, part), folder / part / file)
    call: dict[str, Any] = json.loads(request.read_text())
    drawn = {name: tensor.double() for name, tensor in load_file(noise).items()}
    pipeline.to(torch.float64)
    for scheduler in (pipeline.prior_scheduler, pipeline.decoder_scheduler, pipeline.super_res_scheduler):
        widen(scheduler)
    call |= {name: drawn.pop(name) for name in ("prior_latents", "decoder_latents", "super_res_latents")}
    steps = [drawn[name] for name in sorted(drawn)]

    def next_noise(shape: Any, **_: Any) -> torch.Tensor:
        given = steps.pop(0)
        if tuple(given.shape) != tuple(shape):
            raise SystemExit(
                f"the scheduler asks for noise of shape {tuple(shape)}, given was {tuple(given.shape)}"
            )
        return given

    # The schedulers offer no other way to hand them a step's noise.
    scheduling_unclip.randn_tensor = next_noise
    images = pipeline(**call, output_type="np", return_dict=False)[0]
    if steps:
        raise SystemExit(f"{len(steps)} steps of noise were left over")
    save_file({"images": torch.from_numpy(images).contiguous()}, picture)


def widen(scheduler: Any) -> None:
    """Have the scheduler compute in float64; its betas are those of Nichol & Dhariwal 2021, as before."""
    num_steps = scheduler.config.num_train_timesteps

    def signal(t: int) -> float:
        return math.cos((t / num_steps + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - signal(t + 1) / signal(t), 0.999) for t in range(num_steps)]
    exact = torch.tensor(betas, dtype=torch.float64)
    if not torch.allclose(exact, scheduler.betas.double(), atol=1e-7):
        raise SystemExit("the folder's scheduler has other betas than the cosine schedule's")
    scheduler.betas, scheduler.alphas = exact, 1 - exact
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)


def check_names(part: str, module: torch.nn.Module, file: Path) -> None:
    """The file's tensors are the module's, no more and no fewer."""
    with safe_open(file, framework="pt") as opened:
        written = set(opened.keys())
    expected = set(module.state_dict())
    if differing := sorted(written ^ expected):
        raise SystemExit(
            f"{part}: {differing[0]} is in only one of file and model ({len(differing)} such names)"
        )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
