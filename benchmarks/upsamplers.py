"""Do the upsamplers beat bicubic interpolation? PSNR on held-out emoji, enlarged from the same small pictures.

Trains both where that is not done yet (20 → 64 pixels, blur; 64 → 256, BSR and the linear schedule); interrupted, it
goes on when run again. The mean square error is least for the mean of all pictures that fit, which is what x_0 is
predicted to be from pure noise, in one step; more steps draw one of these pictures, and are measured beside it.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from benchmarks import enlarging
from benchmarks.measure import Promise, circumstances
from dalle2_train import storage
from dalle2_train.config import to_dict
from dalle2_train.data.samples.collect import collect
from dalle2_train.data.sources.ingest import IngestResult, ingest
from dalle2_train.generation.config import UpsamplerStageConfig
from dalle2_train.generation.grid import compare
from dalle2_train.generation.part import load_upsampler
from dalle2_train.launch import TrainJob, train
from dalle2_train.recipe import load_recipe
from dalle2_train.training.degradation import shrink
from dalle2_train.training.denoising import to_signal
from dalle2_train.training.finished import FitResult
from dalle2_train.training.upsampler import UpsamplerModelConfig
from dalle2_train.workflow import Workflow
from dalle2_train.workflow.questions import data_digest

ONE_STEP = "ddim, 1 step"


@dataclass(frozen=True)
class Stage:
    """An upsampler, what it is trained on, and the paper's number of DDIM steps for it."""

    recipe: str
    source: str
    paper_steps: int
    num_pictures: int
    """Of the validation split."""


STAGES = {
    "first": Stage("upsampler/tiny", "emoji:quick", 27, 100),
    "second": Stage("upsampler/tiny-bsr", "emoji:outlined:256", 15, 32),
}


def main() -> int:
    """Prints and writes the numbers, draws the grid; 1 where bicubic is better."""
    args = _arguments()
    flow = Workflow(args.folder)
    measured = {name: _measure(flow, name, stage, args.pictures) for name, stage in STAGES.items()}
    promises = [
        Promise(f"{name}, {small}: gain over bicubic, dB", rows[ONE_STEP]["gain"], least=0)
        for name, found in measured.items()
        for small, rows in found["psnr_db"].items()
    ]
    told = circumstances("python -m benchmarks.upsamplers")
    storage.publish_json(
        args.to, {**told, **measured, "promises": {promise.name: promise.to_json() for promise in promises}}
    )
    print(_table(measured))
    return 0 if all(promise.kept for promise in promises) else 1


def _measure(flow: Workflow, name: str, stage: Stage, pictures: str) -> dict[str, Any]:
    """Trains where that is left to do; the scores by kind of small picture and sampler."""
    data = _shards(flow, stage.source)
    run = _trained(flow, name, stage.recipe, data)
    part, model = load_upsampler(run), load_recipe(stage.recipe).model
    assert isinstance(model, UpsamplerModelConfig)
    size = model.network.high_size
    samples = collect(data, "validation", size, stage.num_pictures)
    images = torch.stack([torch.from_numpy(sample.image.copy()) for sample in samples])
    images = images.permute(0, 3, 1, 2).contiguous()  # (B, 3, H, H)
    smalls = {
        "shrunk alone": shrink(to_signal(images, torch.float32), model.network.low_size),
        model.degradation.kind: enlarging.degraded(images, model),
    }
    samplers = {f"ddim, {n} step{'s' * (n > 1)}": n for n in (1, stage.paper_steps)}
    samplers = {label: UpsamplerStageConfig("ddim", n) for label, n in samplers.items()}
    scores = {kind: enlarging.compare(part, images, small, samplers) for kind, small in smalls.items()}
    worst = list(smalls.values())[-1][:6]
    rows = {"small": enlarging.to_uint8(worst), "bicubic": enlarging.bicubic(worst, size)}
    rows |= {label: enlarging.ours(part, worst, sampler) for label, sampler in samplers.items()}
    _draw(rows | {"true": images[:6]}, [s.caption for s in samples[:6]], f"{pictures}-{name}.png")
    return {
        "recipe": stage.recipe,
        "data": stage.source,
        "num_pictures": len(images),
        "psnr_db": scores,
    }


def _shards(flow: Workflow, source: str) -> str:
    name = f"shards-{source.replace(':', '-')}"
    place = storage.join(flow.folder, name)
    return flow.stage(
        name,
        IngestResult,
        lambda tell: ingest(source, place, tell),
        question={"source": source},
    ).uri


def _trained(flow: Workflow, name: str, recipe: str, data: str) -> str:
    """The model's URI."""
    loaded = load_recipe(recipe)
    job = TrainJob(recipe=loaded, data=data, storage=storage.join(flow.folder, "runs"), name=name)
    question = {"recipe": to_dict(loaded), "data": data_digest(data)}
    return flow.stage(
        name,
        FitResult,
        lambda _: train(job),
        question=question,
        run_uri=storage.join(flow.folder, "runs", name),
    ).model


def _draw(rows: Mapping[str, torch.Tensor], captions: list[str], to: str) -> None:
    """Small pictures are enlarged pixel by pixel."""
    size = rows["true"].shape[-1]
    squares = interpolate(rows["small"], size, mode="nearest-exact")
    picture = io.BytesIO()
    compare({**rows, "small": squares}, captions, scale=max(1, 192 // size)).save(picture, "PNG")
    storage.publish_bytes(to, picture.getvalue())


def _table(measured: Mapping[str, Any]) -> str:
    lines = [f"{'':44}{'ours':>8}{'bicubic':>9}{'gain':>14}{'better':>8}   dB"]
    for name, found in measured.items():
        for kind, rows in found["psnr_db"].items():
            for sampler, score in rows.items():
                gain = f"{score['gain']:+.2f} ± {score['gain_error']:.2f}"
                lines.append(f"{name}, {kind}, {sampler}".ljust(44) + f"{score['psnr']:8.2f}"
                             f"{score['bicubic_psnr']:9.2f}{gain:>14}{score['share_better']:8.0%}")  # fmt: skip
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="upsamplers", help="shards and runs (default: %(default)s)")
    parser.add_argument(
        "--to", default="docs/results/upsamplers.json", help="the numbers (default: %(default)s)"
    )
    parser.add_argument("--pictures", default=str(Path("docs") / "images" / "upsamplers"), metavar="PREFIX")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
