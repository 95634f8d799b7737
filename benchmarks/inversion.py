"""How well a trained decoder gives a picture back: DDIM inversion, then DDIM, guidance 1, nothing clipped.

    python -m benchmarks.inversion MODEL… --data SHARDS [--pictures 16] [--steps 50,250] [--refinements 0,1,2]

The PSNR is of the decoder's pictures against the real ones of its size, in dB. Promised: 40 dB in the mean of the
pictures, in the most steps, with and without refinement.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.measure import Promise, circumstances
from dalle2_train import storage
from dalle2_train.checkpoints import weights_digest
from dalle2_train.config import build
from dalle2_train.data.samples.collect import collect
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.manipulations.drawing import DEFAULTS, Session, draw_small
from dalle2_train.generation.manipulations.latents import InversionConfig, find_latents
from dalle2_train.generation.manipulations.pictures import Picture, to_signal
from dalle2_train.generation.pixels import psnr
from dalle2_train.generation.unclip import Unclip
from dalle2_train.workflow.questions import data_digest

LEAST_DB = 40.0


def main() -> int:
    """Measures every combination of steps and refinements, and writes the JSON; 1 where the promise is not kept."""
    args = _parse()
    unclip = load_unclip(args.models, parts=("decoder",))
    pictures = open_pictures(unclip, args.data, args.split, args.pictures)
    runs = [
        measure(unclip, pictures, num_steps, num_refinements)
        for num_steps in args.steps
        for num_refinements in args.refinements
    ]
    promises = [
        Promise(
            f"{run['num_steps']} steps, {run['num_refinements']} refinements",
            run["psnr_db"]["mean"],
            LEAST_DB,
        )
        for run in runs
        if run["num_steps"] == max(args.steps)
    ]
    found = {
        **circumstances("make bench-inversion RELEASE=… DATA=…"),
        "data": data_digest(args.data),
        "decoder": weights_digest(unclip.decoder.manifest),
        "split": args.split,
        "num_pictures": len(pictures),
        "runs": runs,
        "promises": {promise.name: promise.to_json() for promise in promises},
    }
    storage.publish_json(args.to, found)
    print(json.dumps(found, indent=1))
    return 0 if all(promise.kept for promise in promises) else 1


def open_pictures(unclip: Unclip, data: str, split: str, count: int) -> list[Picture]:
    """The first of a split, as CLIP sees them and as the decoder makes them."""
    views = [
        [
            torch.from_numpy(sample.image).permute(2, 0, 1)
            for sample in collect(data, split, size, limit=count)
        ]
        for size in (unclip.clip.image_size, unclip.decoder.network.config.image_size)
    ]
    return [Picture(for_clip, (small,)) for for_clip, small in zip(*views, strict=True)]


@torch.inference_mode()
def measure(
    unclip: Unclip, pictures: Sequence[Picture], num_steps: int, num_refinements: int
) -> dict[str, Any]:
    """The PSNR of the pictures given back, and what x_T's mean and deviation, 0 and 1 of noise, have become."""
    config = build(GenerationConfig, DEFAULTS, "generation")
    config = replace(config, decoder=replace(config.decoder, num_steps=num_steps))
    latents = find_latents(unclip, pictures, config.decoder, InversionConfig(num_refinements), lambda: None)
    session = Session(unclip, config, 0, lambda: None)
    drawn = draw_small(session, latents, torch.arange(len(pictures)))
    found = [
        psnr(image, to_signal(picture.small), span=2).item()
        for image, picture in zip(drawn, pictures, strict=True)
    ]
    return {
        "num_steps": num_steps,
        "num_refinements": num_refinements,
        "psnr_db": {"mean": statistics.mean(found), "min": min(found), "max": max(found)},
        "x_T_mean": float(latents.x_T.mean()),
        "x_T_std": float(latents.x_T.std()),
    }


def _parse() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="a release, or a decoder")
    parser.add_argument("--data", required=True, metavar="URI", help="shards")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--to", default="docs/results/inversion.json", help="the JSON to be written")
    parser.add_argument("--pictures", type=int, default=16, metavar="N")
    parser.add_argument("--steps", type=numbers, default=[50, 250], metavar="N,N,…")
    parser.add_argument("--refinements", type=numbers, default=[0, 1, 2], metavar="N,N,…")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
