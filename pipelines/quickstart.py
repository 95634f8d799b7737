"""From an empty folder to a picture: emoji → CLIP → prior → decoder → upsampler → judged, promoted, exported.

`make quickstart` runs it on two cores in minutes. Interrupted, it goes on where it was when run
again; finished, it only says again what it made.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.config import build, to_dict
from dalle2_train.data.sources.ingest import IngestResult, ingest
from dalle2_train.errors import EXIT_CODES, INTERRUPTED, exit_code
from dalle2_train.evaluation import EvaluationConfig, EvaluationReport, read_report, table, verified_digest
from dalle2_train.export.diffusers_folder import DiffusersExport, export_diffusers
from dalle2_train.export.release import Release, export_release
from dalle2_train.generation.config import (
    DecoderStageConfig,
    GenerationConfig,
    PriorStageConfig,
    UpsamplerStageConfig,
)
from dalle2_train.generation.drawing import open_text_to_image
from dalle2_train.launch import TrainJob, train
from dalle2_train.launch.embed import embed
from dalle2_train.promotion import PromotionDecision, promote
from dalle2_train.recipe import load_recipe
from dalle2_train.training.finished import FitResult
from dalle2_train.workflow import Workflow, loss_curves
from dalle2_train.workflow.progress import Tell
from dalle2_train.workflow.steps import evaluate_model, sample_captions


@dataclass(frozen=True)
class Plan:
    """What differs between one way from shards to pictures and another."""

    source: str
    """What `shards ingest` takes."""
    recipes: dict[str, str]
    """Family → recipe."""
    workers: dict[str, int]
    """Family → Ray workers; 0: this process."""
    sampler: GenerationConfig
    evaluation: EvaluationConfig
    model: str
    """Name in the registry."""
    overrides: tuple[str, ...] = ()
    """KEY=VALUE, for every recipe."""


QUICKSTART = Plan(
    source="emoji:quick",
    recipes={family: f"{family}/tiny" for family in ("clip", "prior", "decoder", "upsampler")},
    workers={"clip": 0, "prior": 2, "decoder": 0, "upsampler": 0},
    sampler=GenerationConfig(
        prior=PriorStageConfig("ddim", 20, eta=1.0, guidance_scale=1.0),
        # Few steps: a decoder of minutes takes its own errors for the picture, and adds to them at every step.
        decoder=DecoderStageConfig("ddim", 2, guidance_scale=1.0),
        upsampler=UpsamplerStageConfig("ddim", 2),
    ),
    evaluation=EvaluationConfig(num_queries=100, scale=()),
    model="emoji-tiny",
)


@dataclass(frozen=True)
class Made:
    """The path of a thing that a stage made."""

    path: str


@dataclass(frozen=True)
class Parts:
    """URIs of what training leaves behind."""

    shards: str
    clip: str
    prior: str
    decoder: str
    upsampler: str


def run(plan: Plan, folder: str) -> dict[str, Any]:
    """The whole way; returns what `folder`/result.json says."""
    flow = Workflow(folder)
    parts = train_parts(flow, plan)
    paths = release(flow, plan, parts)
    paths["losses"] = storage.join(flow.folder, "losses.png")
    loss_curves({family: _run_uri(flow, family) for family in plan.recipes}, paths["losses"])
    result = {
        "stages": {
            name: {"seconds": round(record.seconds, 1), "workers": record.workers}
            for name, record in flow.records.items()
        },
        "peak_memory_gb": round(flow.peak_memory_gb, 2),
        "judge": _report(paths["release"]).to_json()["judge"],
        "paths": paths,
    }
    storage.publish_json(storage.join(flow.folder, "result.json"), result)
    return result


def train_parts(flow: Workflow, plan: Plan) -> Parts:
    """Shards → CLIP → embeddings → prior, decoder, upsampler."""
    home = flow.folder
    shards = flow.stage(
        "shards",
        IngestResult,
        lambda tell: ingest(plan.source, storage.join(home, "shards"), tell),
        question={"source": plan.source},
    ).uri
    clip = _train(flow, plan, "clip", shards)
    clip_digest = verified_digest(clip)
    embeddings = flow.stage(
        "embeddings",
        Made,
        lambda tell: _embed(shards, _place(home, "embeddings", clip_digest), clip, tell),
        question={"clip": clip_digest},
    ).path
    prior = _train(flow, plan, "prior", shards, clip, embeddings)
    decoder = _train(flow, plan, "decoder", shards, clip, embeddings)
    upsampler = _train(flow, plan, "upsampler", shards)
    return Parts(shards, clip, prior, decoder, upsampler)


def release(flow: Workflow, plan: Plan, parts: Parts) -> dict[str, str]:
    """Parts → one folder → judged → champion → diffusers and pictures; returns where everything is."""
    home, models = flow.folder, [parts.prior, parts.decoder, parts.upsampler]
    digest = verified_digest(models)
    released = flow.stage(
        "release",
        Release,
        lambda _: export_release(models, _place(home, "releases", digest), clip=parts.clip),
        question={"models": digest},
    )
    model, sampled = released.path, {"model": released.digest, "sampler": plan.sampler}
    report = flow.stage(
        "evaluation",
        Made,
        lambda tell: _evaluate(model, parts.shards, plan.evaluation, plan.sampler, tell),
        question={**sampled, "config": plan.evaluation},
    ).path
    flow.stage(
        "promotion",
        PromotionDecision,
        lambda _: promote(model, plan.model, "champion", tracking_uri=_tracking(flow)),
        question={"model": released.digest},
    )
    exported = flow.stage(
        "export",
        DiffusersExport,
        lambda _: export_diffusers([model], _place(home, "diffusers", digest)),
        question={"model": released.digest},
    ).path
    samples = flow.stage(
        "pictures",
        Made,
        lambda _: Made(sample_captions(model, parts.shards, storage.join(home, "samples.png"), plan.sampler)),
        question=sampled,
    ).path
    return {
        "samples": samples,
        "report": report,
        "release": model,
        "diffusers": exported,
        "tracking": _tracking(flow),
    }


def _train(
    flow: Workflow, plan: Plan, family: str, data: str, clip: str | None = None, embeddings: str | None = None
) -> str:
    """Train one family's recipe as a stage; returns the model's URI."""
    workers = plan.workers[family]
    recipe = load_recipe(plan.recipes[family], plan.overrides)
    job = TrainJob(
        recipe=recipe,
        data=data,
        storage=storage.join(flow.folder, "runs"),
        name=family,
        clip=clip,
        embeddings=embeddings,
        tracking=_tracking(flow),
        experiment=plan.model,
    )
    return flow.stage(
        family,
        FitResult,
        lambda _: train(job, workers),
        question={"recipe": recipe, "workers": workers},
        workers=workers,
        run_uri=_run_uri(flow, family),
    ).model


def _place(home: str, kind: str, digest: str) -> str:
    """A folder for what was made of the model `digest`: another model's lies beside it, not on top."""
    return storage.join(home, kind, digest[:8])


def _run_uri(flow: Workflow, family: str) -> str:
    return storage.join(flow.folder, "runs", family)


def _tracking(flow: Workflow) -> str:
    return f"sqlite:///{Path(flow.folder) / 'mlflow.db'}"


def _embed(shards: str, to: str, clip: str, tell: Tell) -> Made:
    # A few thousand samples: their text's states are sooner read than computed at every step.
    embed(shards, to, clip, dtype="fp32", text_encodings=True, progress=tell)
    return Made(to)


def _evaluate(model: str, data: str, config: EvaluationConfig, sampler: GenerationConfig, tell: Tell) -> Made:
    def progress(what: str, done: int, total: int) -> None:
        tell(done, total, what)

    return Made(
        evaluate_model(open_text_to_image([model], sampler), [model], data, config, progress=progress)[0]
    )


def _report(model: str) -> EvaluationReport:
    report = read_report(model)
    assert report is not None, "the evaluation's stage has written it"
    return report


def summary(result: dict[str, Any], folder: str) -> str:
    """What a person wants to know at the end."""
    paths = result["paths"]
    seconds = sum(stage["seconds"] for stage in result["stages"].values())
    return "\n".join(
        [
            "",
            table(_report(paths["release"])),
            "",
            f"{seconds / 60:.1f} minutes of stages, {result['peak_memory_gb']:.1f} GB of memory at the peak",
            f"pictures      {paths['samples']}",
            f"loss curves   {paths['losses']}",
            f"evaluation    {paths['report']}",
            f"model         {paths['release']}  (for diffusers: {paths['diffusers']})",
            f"experiments   make ui FOLDER={folder}, then http://127.0.0.1:5000",
        ]
    )


def main(plan: Plan, folder: str, description: str | None, argv: Sequence[str] | None = None) -> int:
    """The program around `run`: its arguments, its exit code, its last words."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", default=folder, help="where everything goes (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every recipe")
    parser.add_argument("--json", action="store_true", help="print result.json on the last line")
    args = parser.parse_args(argv)
    try:
        result = run(
            build(Plan, {**to_dict(plan), "overrides": [*plan.overrides, *args.set]}, "plan"), args.folder
        )
    except tuple(EXIT_CODES) as error:
        print(str(error) or INTERRUPTED, file=sys.stderr)
        return exit_code(error)
    print(summary(result, args.folder))
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(QUICKSTART, "quickstart", __doc__))
