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
from diffusers import UnCLIPImageVariationPipeline, UnCLIPPipeline
from diffusers.schedulers import scheduling_unclip
from PIL import Image
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
    "image_encoder": "model.safetensors",
}
_SCHEDULERS = ("prior_scheduler", "decoder_scheduler", "super_res_scheduler")

# Pixels near 1 in float32, after a resize that changes nothing.
_PIXEL_TOLERANCE = 1e-5


def main(folder: Path, request: Path, noise: Path, picture: Path) -> None:
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipelines = {cls.__name__: cls for cls in (UnCLIPPipeline, UnCLIPImageVariationPipeline)}
    pipeline = pipelines[name].from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    for part, file in _WEIGHTS.items():
        if part in pipeline.components:
            check_names(part, getattr(pipeline, part), folder / part / file)
    call: dict[str, Any] = json.loads(request.read_text())
    given = load_file(noise)
    if "picture" in given:
        call["image"] = prepared(pipeline, given.pop("picture"), given.pop("pixel_values"))
    drawn = {name: tensor.double() for name, tensor in given.items()}
    pipeline.to(torch.float64)
    for scheduler in _SCHEDULERS:
        if scheduler in pipeline.components:
            widen(getattr(pipeline, scheduler))
    call |= {name: drawn.pop(name) for name in list(drawn) if name.endswith("_latents")}
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


def prepared(pipeline: Any, picture: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor:
    """The given pixel_values (B, 3, S, S), once the folder's feature_extractor makes the same of the picture.

    They are handed over because it computes in float32, and what CLIP sees has to be equal to the last bit.
    """
    images = [Image.fromarray(one.numpy()) for one in picture]
    theirs = pipeline.feature_extractor(images=images, return_tensors="pt").pixel_values
    if theirs.shape != pixel_values.shape or (theirs - pixel_values).abs().max() > _PIXEL_TOLERANCE:
        raise SystemExit("the folder's feature_extractor prepares a picture otherwise than we do")
    return pixel_values.double()


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
