"""From an empty folder to a picture: emoji → CLIP → prior → decoder → upsampler → judged, promoted, exported.

`make quickstart` runs it on two cores in about a quarter of an hour. Interrupted, it goes on where it was when run
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
from dalle2_train.data.ingest import IngestResult, ingest
from dalle2_train.errors import InputError, PreemptedError, RefusedError
from dalle2_train.evaluation import EvaluationConfig, EvaluationReport, read_report, table
from dalle2_train.export.diffusers_folder import DiffusersExport, export_diffusers
from dalle2_train.export.release import Release, export_release
from dalle2_train.generation.pipeline import GenerationConfig
from dalle2_train.launch import TrainJob, train
from dalle2_train.launch.embed import embed
from dalle2_train.promotion import PromotionDecision, PromotionPolicy, promote
from dalle2_train.recipe import load_recipe
from dalle2_train.training.fit import FitResult
from dalle2_train.workflow import Workflow, loss_curves
from dalle2_train.workflow.progress import Tell
from dalle2_train.workflow.steps import evaluate_models, sample_captions


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
        prior_num_steps=20,
        decoder_num_steps=20,
        upsampler_num_steps=5,
        prior_guidance_scale=1.0,
        decoder_guidance_scale=2.0,
        sampler="ddim",
    ),
    evaluation=EvaluationConfig(num_queries=100, scale=()),
    model="emoji-tiny",
)


@dataclass(frozen=True)
class Made:
    """The path of a thing that a stage made."""

    path: str


def run(plan: Plan, folder: str) -> dict[str, Any]:
    """The whole way; returns what `folder`/result.json says."""
    flow = Workflow(folder)
    home = flow.folder
    tracking = f"sqlite:///{Path(home) / 'mlflow.db'}"
    runs = storage.join(home, "runs")

    def train_stage(
        family: str, data: str, clip: str | None = None, embeddings: str | None = None
    ) -> FitResult:
        workers = plan.workers[family]
        recipe = load_recipe(plan.recipes[family], plan.overrides)
        job = TrainJob(recipe=recipe, data=data, storage=runs, name=family, clip=clip, embeddings=embeddings,
                       tracking=tracking, experiment=plan.model)  # fmt: skip
        return flow.stage(
            family,
            FitResult,
            lambda _: train(job, workers),
            question={"recipe": to_dict(recipe), "workers": workers},
            workers=workers,
            run_uri=storage.join(runs, family),
        )

    shards = flow.stage(
        "shards",
        IngestResult,
        lambda _: ingest(plan.source, storage.join(home, "shards")),
        question={"source": plan.source},
    ).uri
    clip = train_stage("clip", shards).model
    embeddings = flow.stage(
        "embeddings",
        Made,
        lambda _: _embed(shards, storage.join(home, "embeddings"), clip),
        question={"clip": clip},
    ).path
    prior = train_stage("prior", embeddings, clip).model
    decoder = train_stage("decoder", shards, clip, embeddings).model
    upsampler = train_stage("upsampler", shards).model

    release = flow.stage(
        "release",
        Release,
        lambda _: export_release([prior, decoder, upsampler], storage.join(home, "release"), clip=clip),
        question={"models": [prior, decoder, upsampler]},
    )
    report = flow.stage(
        "evaluation",
        Made,
        lambda tell: _evaluate(release.path, shards, plan.evaluation, plan.sampler, tell),
        question={
            "model": release.digest,
            "sampler": to_dict(plan.sampler),
            "config": to_dict(plan.evaluation),
        },
    ).path
    flow.stage(
        "promotion",
        PromotionDecision,
        lambda _: promote(
            release.path, plan.model, "champion", tracking_uri=tracking, policy=PromotionPolicy()
        ),
        question={"model": release.digest},
    )
    exported = flow.stage(
        "export",
        DiffusersExport,
        lambda _: export_diffusers([release.path], storage.join(home, "diffusers")),
        question={"model": release.digest},
    ).path
    pictures = flow.stage(
        "pictures",
        Made,
        lambda _: Made(
            sample_captions(release.path, shards, storage.join(home, "samples.png"), plan.sampler)
        ),
        question={"model": release.digest, "sampler": to_dict(plan.sampler)},
    ).path

    curves = storage.join(home, "losses.png")
    loss_curves({family: storage.join(runs, family) for family in plan.recipes}, curves)
    result = {
        "stages": {
            name: {"seconds": round(record.seconds, 1), "workers": record.workers}
            for name, record in flow.records.items()
        },
        "peak_memory_gb": round(flow.peak_memory_gb, 2),
        "judge": _report(release.path).to_json()["judge"],
        "paths": {"samples": pictures, "losses": curves, "report": report, "release": release.path,
                  "diffusers": exported, "tracking": tracking},
    }  # fmt: skip
    storage.publish_json(storage.join(home, "result.json"), result)
    return result


def _report(model: str) -> EvaluationReport:
    report = read_report(model)
    assert report is not None, "the evaluation's stage has written it"
    return report


def _embed(shards: str, to: str, clip: str) -> Made:
    embed(shards, to, clip)
    return Made(to)


def _evaluate(model: str, data: str, config: EvaluationConfig, sampler: GenerationConfig, tell: Tell) -> Made:
    def progress(what: str, done: int, total: int) -> None:
        tell(done, total, what)

    return Made(evaluate_models([model], data, config, sampler, progress=progress)[0])


def summary(result: dict[str, Any]) -> str:
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
            "experiments   make ui, then http://127.0.0.1:5000",
        ]
    )


def main(plan: Plan, folder: str, argv: Sequence[str] | None = None) -> int:
    """The program around `run`: its arguments, its exit code, its last words."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=folder, help="where everything goes (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change every recipe")
    parser.add_argument("--json", action="store_true", help="print result.json on the last line")
    args = parser.parse_args(argv)
    try:
        result = run(build(Plan, {**to_dict(plan), "overrides": args.set}, "plan"), args.folder)
    except (InputError, RefusedError, PreemptedError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return {InputError: 2, RefusedError: 3, PreemptedError: 75}[type(error)]
    print(summary(result))
    if args.json:
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(QUICKSTART, "quickstart"))
