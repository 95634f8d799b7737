"""What each piece of unCLIP buys: the same captions drawn by a direct baseline, by halves of the stack, by the whole.

`make comparison` trains every network on emoji for the same CPU time, judges every variant, and writes a table, its
numbers and a grid of pictures. Interrupted, it goes on where it was when run again; what is finished stays.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dalle2_train import storage
from dalle2_train.data.sources.ingest import IngestResult, ingest
from dalle2_train.errors import EXIT_CODES, INTERRUPTED, exit_code
from dalle2_train.evaluation import EvaluationConfig, EvaluationReport, verified_digest
from dalle2_train.evaluation.output import read_report
from dalle2_train.evaluation.side_by_side import side_by_side
from dalle2_train.generation.config import DecoderStageConfig, GenerationConfig, PriorStageConfig
from dalle2_train.generation.drawing import Enlarged, open_text_to_image
from dalle2_train.generation.text_to_image import TextToImage
from dalle2_train.launch import TrainJob, train
from dalle2_train.launch.embed import embed
from dalle2_train.recipe import load_recipe
from dalle2_train.training.finished import FitResult
from dalle2_train.workflow import Workflow
from dalle2_train.workflow.progress import Tell
from dalle2_train.workflow.questions import data_digest
from dalle2_train.workflow.steps import draw_side_by_side, evaluate_model
from dalle2_train.workflow.train_within import Trained, train_within
from pipelines.comparison_page import page
from pipelines.quickstart import QUICKSTART

FEW_STEPS = QUICKSTART.sampler.decoder
# A decoder that knows less of its picture may need what FEW_STEPS goes without.
GUIDED = DecoderStageConfig("ddim", 10, guidance_scale=2.0)


@dataclass(frozen=True)
class Variant:
    """A row of the table."""

    networks: tuple[str, ...]
    """Their names in `Plan.networks`; the CLIP is every row's."""
    decoder: DecoderStageConfig = FEW_STEPS
    """How its decoder draws, and what that reads as an image embedding."""


@dataclass(frozen=True)
class Plan:
    """All that decides the numbers."""

    source: str
    """What `shards ingest` takes."""
    clip: tuple[str, ...]
    """Recipe and KEY=VALUE; trained for as long as its recipe says, for no row is without it."""
    networks: Mapping[str, tuple[str, ...]]
    """Name → recipe and KEY=VALUE; each is trained for the same CPU time."""
    variants: Mapping[str, Variant]
    """By label."""
    evaluation: EvaluationConfig
    cpu_seconds: float = 20 * 60
    """Of each network."""
    threads: int = 2
    """Of a training."""
    measured: str = ""
    """Where and when, for the page."""


EMOJI = Plan(
    source="emoji:quick",
    clip=("clip/tiny",),
    networks={
        "direct": ("direct/tiny",),
        "text-decoder": ("decoder/tiny", "model.image_embed_dropout=1.0"),
        "decoder": ("decoder/tiny",),
        "ar-prior": ("ar_prior/tiny",),
        "prior": ("prior/tiny",),
        "upsampler": ("upsampler/tiny",),
    },
    variants={
        "direct baseline": Variant(("direct",)),
        "decoder on text only": Variant(("text-decoder",), replace(FEW_STEPS, image_embed="none")),
        "decoder on text only, guided": Variant(("text-decoder",), replace(GUIDED, image_embed="none")),
        "decoder, text embedding as the image's": Variant(
            ("decoder",), replace(FEW_STEPS, image_embed="text")
        ),
        "decoder, text embedding as the image's, guided": Variant(
            ("decoder",), replace(GUIDED, image_embed="text")
        ),
        "AR prior, decoder": Variant(("ar-prior", "decoder")),
        "diffusion prior, decoder": Variant(("prior", "decoder")),
        "diffusion prior, decoder, guided": Variant(("prior", "decoder"), GUIDED),
        "diffusion prior, decoder, upsampler": Variant(("prior", "decoder", "upsampler")),
    },
    evaluation=EvaluationConfig(image_size=64),
)


@dataclass(frozen=True)
class Made:
    """The path of a thing that a stage made."""

    path: str


def run(plan: Plan, folder: str) -> dict[str, Any]:
    """The whole way; returns what `folder`/comparison.json says."""
    flow = Workflow(folder)
    shards, clip, embeddings = _prepare(flow, plan)
    trained = {
        name: train_within(flow, _job(flow, plan, name, shards, clip, embeddings), plan.cpu_seconds)
        for name in plan.networks
    }
    reports = {label: _evaluate(flow, plan, label, trained, shards) for label in plan.variants}
    result = _result(plan, trained, reports)
    text = page(result, side_by_side(reports))
    storage.publish_bytes(storage.join(flow.folder, "comparison.md"), text.encode())
    storage.publish_json(storage.join(flow.folder, "comparison.json"), result)
    _draw(flow, plan, trained, shards)
    return result


def _prepare(flow: Workflow, plan: Plan) -> tuple[str, str, str]:
    """(shards, CLIP, its embeddings): what all rows share."""
    shards = flow.stage(
        "shards",
        IngestResult,
        lambda tell: ingest(plan.source, storage.join(flow.folder, "shards"), tell),
        question={"source": plan.source},
    ).uri
    recipe = load_recipe(plan.clip[0], [*plan.clip[1:], "training.sample_every_steps=0"])
    job = TrainJob(recipe, shards, storage.join(flow.folder, "runs"), "clip")
    asked = {"recipe": recipe, "data": data_digest(shards)}
    clip = flow.stage("clip", FitResult, lambda _: train(job), question=asked, run_uri=job.run_uri).model
    digest = verified_digest(clip)
    embeddings = flow.stage(
        "embeddings",
        Made,
        lambda tell: _embed(shards, storage.join(flow.folder, "embeddings", digest[:8]), clip, tell),
        question={"clip": digest, "data": asked["data"]},
    ).path
    return shards, clip, embeddings


def _embed(shards: str, to: str, clip: str, tell: Tell) -> Made:
    embed(shards, to, clip, dtype="fp32", text_encodings=True, progress=tell)
    return Made(to)


def _job(flow: Workflow, plan: Plan, name: str, shards: str, clip: str, embeddings: str) -> TrainJob:
    settings = (f"training.num_threads={plan.threads}", "training.sample_every_steps=0")
    recipe = load_recipe(plan.networks[name][0], [*plan.networks[name][1:], *settings])
    job = TrainJob(recipe, shards, storage.join(flow.folder, "runs"), name)
    return replace(
        job, clip=clip if job.needs_clip else None, embeddings=embeddings if job.needs_embeddings else None
    )


def _open(plan: Plan, label: str, trained: Mapping[str, Trained]) -> TextToImage:
    """A variant, ready to draw pictures of the evaluation's size."""
    variant, size = plan.variants[label], plan.evaluation.image_size
    models = [trained[name].model for name in variant.networks]
    model = open_text_to_image(models, _sampler(plan, variant), parts=("prior", "decoder"))
    return model if model.image_size == size else Enlarged(model, size)


def _sampler(plan: Plan, variant: Variant) -> GenerationConfig:
    """The quickstart's, but for its decoder; a section whose stage the variant lacks has no effect."""
    families = {plan.networks[name][0].partition("/")[0] for name in variant.networks}
    if families == {"direct"}:
        return GenerationConfig()
    # What is set for a diffusion prior is refused beside an autoregressive one.
    prior = QUICKSTART.sampler.prior if "prior" in families else PriorStageConfig()
    return replace(QUICKSTART.sampler, prior=prior, decoder=variant.decoder)


def _evaluate(
    flow: Workflow, plan: Plan, label: str, trained: Mapping[str, Trained], shards: str
) -> EvaluationReport:
    variant, model = plan.variants[label], _open(plan, label, trained)
    models = [trained[name].model for name in variant.networks]
    home = storage.join(flow.folder, "variants", re.sub(r"\W+", "-", label))

    def work(tell: Tell) -> Made:
        def progress(what: str, done: int, total: int) -> None:
            tell(done, total, what)

        to = storage.join(home, "evaluation")
        return Made(evaluate_model(model, models, shards, plan.evaluation, to=to, progress=progress)[0])

    asked = {
        "models": verified_digest(models),
        "sampler": _sampler(plan, variant),
        "data": data_digest(shards),
        "config": plan.evaluation,
    }
    flow.stage(label, Made, work, question=asked)
    report = read_report(home)
    assert report is not None, "the stage has written it"
    return report


def _draw(flow: Workflow, plan: Plan, trained: Mapping[str, Trained], shards: str) -> None:
    models = {label: _open(plan, label, trained) for label in plan.variants}
    asked = {
        "models": {name: verified_digest(one.model) for name, one in trained.items()},
        "samplers": {label: _sampler(plan, variant) for label, variant in plan.variants.items()},
        "image_size": plan.evaluation.image_size,
        "data": data_digest(shards),
    }
    to = storage.join(flow.folder, "comparison.png")
    flow.stage("pictures", Made, lambda _: Made(draw_side_by_side(models, shards, to)), question=asked)


def _result(
    plan: Plan, trained: Mapping[str, Trained], reports: Mapping[str, EvaluationReport]
) -> dict[str, Any]:
    """The numbers, without the places where they were made."""
    networks = {
        name: {"recipe": plan.networks[name], "num_steps": one.num_steps, "num_parameters": one.num_parameters,
               "cpu_seconds": round(one.cpu_seconds, 1)}
        for name, one in trained.items()
    }  # fmt: skip
    variants = {}
    for label, report in reports.items():
        found = report.to_json()
        variants[label] = {
            "networks": plan.variants[label].networks,
            "cpu_seconds": round(sum(trained[name].cpu_seconds for name in plan.variants[label].networks), 1),
            **{key: found[key] for key in ("sampler", "counts", "judge", "clip", "prior")},
        }
    asked = {
        "source": plan.source,
        "cpu_seconds": plan.cpu_seconds,
        "threads": plan.threads,
        "measured": plan.measured,
    }
    return {**asked, "networks": networks, "variants": variants}


def publish(folder: str, docs: str) -> None:
    """Copy page, numbers and pictures of a finished `folder` to where the project's documents are."""
    for name in ("comparison.md", "results/comparison.json", "images/comparison.png"):
        data = storage.read_bytes(storage.join(folder, name.rpartition("/")[2]))
        storage.publish_bytes(storage.join(docs, name), data)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="comparison", help="where everything goes (default: %(default)s)")
    parser.add_argument("--cpu-minutes", type=float, default=EMOJI.cpu_seconds / 60, help="of each network")
    parser.add_argument("--threads", type=int, default=EMOJI.threads, help="of a training")
    parser.add_argument("--measured", default="", help="machine and date, to be told on the page")
    parser.add_argument("--docs", help="a folder of documents to copy table, numbers and pictures to")
    args = parser.parse_args(argv)
    plan = replace(EMOJI, cpu_seconds=60 * args.cpu_minutes, threads=args.threads, measured=args.measured)
    try:
        run(plan, args.folder)
    except tuple(EXIT_CODES) as error:
        print(str(error) or INTERRUPTED, file=sys.stderr)
        return exit_code(error)
    print(storage.read_bytes(storage.join(args.folder, "comparison.md")).decode())
    if args.docs:
        publish(args.folder, args.docs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
