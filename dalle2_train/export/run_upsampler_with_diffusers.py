"""Run as a script in a fresh process: an exported upsampler's outputs in float64, with diffusers and the folder alone.

usage: run_upsampler_with_diffusers.py FOLDER GIVEN.safetensors FOUND.safetensors

It imports nothing of this package, so that the folder is all that it can know of the model.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UnCLIPScheduler, UNet2DModel
from safetensors.torch import load_file, save_file


def main(folder: Path, given: Path, found: Path) -> None:
    asked = load_file(given)
    scheduler: Any = UnCLIPScheduler.from_pretrained(str(folder / "super_res_scheduler"))
    answers = {"alphas_cumprod": scheduler.alphas_cumprod.double()}
    for name in ("super_res_first", "super_res_last"):
        loaded: Any = UNet2DModel.from_pretrained(str(folder / name), output_loading_info=True)
        network, told = loaded
        if any(told.values()):
            raise SystemExit(f"{name}: the file's tensors are not the network's: {told}")
        with torch.no_grad():
            answers[name] = network.double()(asked["x"], asked["t"]).sample
    save_file(answers, found)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
