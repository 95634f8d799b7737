"""`evaluate`, `promote`, `import`, `export` and `sample`: what is done with trained models."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dalle2_train.cli.manners import (
    MODEL_HELP,
    Outcome,
    add_command,
    add_models,
    add_settings,
    extent,
    resolve_model,
    resolve_models,
    sections,
    would,
)
from dalle2_train.cli.sampler import add_sampler, chosen_defaults, in_words, tell, told
from dalle2_train.errors import InputError, RefusedError

if TYPE_CHECKING:
    from dalle2_train.generation.text_to_image import TextToImage
    from dalle2_train.promotion import PromotionPolicy


def add_commands(commands: Any) -> None:
    """Adds `evaluate`, `promote`, `import`, `export` and `sample`."""
    for add in (_add_evaluate, _add_promote, _add_import, _add_export, _add_sample):
        add(commands)


def _add_evaluate(commands: Any) -> None:
    evaluate = add_command(
        commands, "evaluate", _evaluate, "judge the pictures of a model by split: r1, r10, kid"
    )
    add_models(evaluate)
    evaluate.add_argument("--data", required=True, metavar="URI", help="folder of shards")
    evaluate.add_argument("--to", metavar="URI", help="folder for the report (default: MODEL/evaluation)")
    add_sampler(
        evaluate, "the evaluation, for instance evaluation.num_queries=50 or generation.decoder.num_steps=50"
    )


def _add_promote(commands: Any) -> None:
    promote = add_command(
        commands, "promote", _promote, "give an evaluated model an alias in the registry, by policy"
    )
    promote.add_argument("model", nargs="?", metavar="MODEL", help=MODEL_HELP)
    promote.add_argument("--to", required=True, metavar="ALIAS", help="for instance champion")
    promote.add_argument("--name", default="unclip", help="the registered model (default: %(default)s)")
    promote.add_argument(
        "--rollback", action="store_true", help="give ALIAS back to what it pointed at before"
    )
    promote.add_argument("--tracking", required=True, metavar="URI", help="the MLflow registry")
    add_settings(promote, "the policy, for instance minimum=0.3")


def _add_import(commands: Any) -> None:
    importing = add_command(
        commands,
        "import",
        _import,
        "a diffusers unCLIP folder (Karlo's) → our models, to fine-tune and to sample",
    )
    importing.add_argument(
        "folder",
        metavar="DIR",
        help="what UnCLIPPipeline or UnCLIPImageVariationPipeline wrote (path or URI)",
    )
    importing.add_argument("--to", required=True, metavar="URI", help="the new folder, a MODEL")


def _add_export(commands: Any) -> None:
    export = add_command(
        commands, "export", _export, "one folder with all parts, which proves itself by loading"
    )
    add_models(export)
    export.add_argument("--format", choices=("diffusers", "safetensors"), required=True)
    export.add_argument("--to", required=True, metavar="DIR", help="the new folder")
    export.add_argument(
        "--pipeline",
        choices=tuple(_PIPELINES),
        help="diffusers only: what begins with text (the default) or with a picture, which needs no prior",
    )


def _add_sample(commands: Any) -> None:
    sample = add_command(commands, "sample", _sample, "text → picture")
    add_models(sample)
    sample.add_argument(
        "--prompt", required=True, action="append", metavar="TEXT", help="a caption; may be repeated"
    )
    sample.add_argument("--to", required=True, metavar="PNG", help="the picture: one, or a labelled grid")
    sample.add_argument("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
    add_sampler(sample, "the generation, for instance generation.decoder.guidance_scale=2")


def _evaluate(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import build
    from dalle2_train.evaluation import EvaluationConfig, table
    from dalle2_train.workflow.progress import on_a_line
    from dalle2_train.workflow.steps import evaluate_model

    settings = sections(args.set, evaluation={}, generation={})
    models = resolve_models(args.models, args.tracking)
    model, source = _open_to_draw(args, models, settings["generation"])
    config = build(EvaluationConfig, {"image_size": model.image_size, **settings["evaluation"]}, "evaluation")
    if args.dry_run:
        found, of_them = extent(args.data)
        data = {"models": models, "data": args.data, **found, **told(source, model.settings)}
        return would(data, f"judge {', '.join(models)} on {of_them} of {args.data}", in_words(model.settings))
    with on_a_line("evaluate") as line:

        def tell(what: str, done: int, total: int) -> None:
            line.tell(done, total, what)

        report_uri, report = evaluate_model(model, models, args.data, config, to=args.to, progress=tell)
    return Outcome({"report": report_uri, "sampler_from": source, **report.to_json()}, table(report))


def _open_to_draw(
    args: argparse.Namespace, models: list[str], settings: dict[str, Any]
) -> tuple["TextToImage", str]:
    """The model with its sampler, and where that is from, which is told."""
    from dalle2_train.generation.drawing import open_with_settings

    model, defaults = open_with_settings(models, settings, chosen_defaults(args.preset, models))
    tell(defaults.source, settings)
    return model, defaults.source


def _promote(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import build, override, to_dict
    from dalle2_train.promotion import PromotionPolicy, promote, rollback

    policy = build(PromotionPolicy, override({}, args.set), "policy")
    if (args.model is None) != args.rollback:
        raise InputError("give either the MODEL to promote, or --rollback")
    if args.dry_run:
        return _would_promote(args, policy)
    if args.rollback:
        decision = rollback(args.name, args.to, tracking_uri=args.tracking)
    else:
        model = resolve_model(args.model, args.tracking)
        decision = promote(model, args.name, args.to, tracking_uri=args.tracking, policy=policy)
    text = f"{args.name}@{args.to}: {decision.action} {decision.uri}: {'; '.join(decision.reasons)}"
    return Outcome(to_dict(decision), text)


def _would_promote(args: argparse.Namespace, policy: "PromotionPolicy") -> Outcome:
    from dalle2_train.evaluation import read_report, verified_digest
    from dalle2_train.promotion import judge_candidate
    from dalle2_train.tracking.registry import by_alias

    champion = by_alias(args.name, args.to, tracking_uri=args.tracking)
    if args.rollback:
        return would({"name": args.name, "alias": args.to}, f"roll {args.name}@{args.to} back")
    model = resolve_model(args.model, args.tracking)
    reasons, objections = judge_candidate(read_report(model), verified_digest(model), champion, policy)
    if objections:
        raise RefusedError(f"{model} would not be promoted to {args.name}@{args.to}: {'; '.join(objections)}")
    return would({"uri": model, "reasons": list(reasons)}, f"promote {model} to {args.name}@{args.to}")


_PIPELINES = {"text-to-image": "UnCLIPPipeline", "image-variation": "UnCLIPImageVariationPipeline"}


def _import(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.export.import_folder import check_import, import_diffusers
    from dalle2_train.workflow.progress import on_a_line

    if args.dry_run:
        kinds = check_import(args.folder, args.to)
        return would(
            {"models": kinds, "to": args.to}, f"import {', '.join(kinds)} of {args.folder} to {args.to}"
        )
    with on_a_line("import"):
        result = import_diffusers(args.folder, args.to)
    return Outcome(to_dict(result), f"{result.path}: {', '.join(result.models)}")


def _export(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.workflow.progress import on_a_line

    models = resolve_models(args.models, args.tracking)
    if args.pipeline is not None and args.format != "diffusers":
        raise InputError(
            f"--pipeline {args.pipeline} is diffusers'; leave it out with --format {args.format}"
        )
    check, export = _exporter(args, models)
    if args.dry_run:
        check()
        return would(
            {"models": models, "to": args.to}, f"export {', '.join(models)} as {args.format} to {args.to}"
        )
    with on_a_line("export"):
        result = export()
    return Outcome(to_dict(result), f"{result.path}: {args.format}, {', '.join(result.models)}")


def _exporter(args: argparse.Namespace, models: list[str]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(what refuses all that the export would, but for its proof, the export)."""
    from dalle2_train.export import diffusers_folder, exportable, release, upsampler_folder
    from dalle2_train.export.diffusers_names import diffusers_version
    from dalle2_train.generation.drawing import load_model
    from dalle2_train.generation.part import load_upsampler

    to, pipeline = args.to, _PIPELINES[args.pipeline or "text-to-image"]
    if args.format == "safetensors":
        return (
            lambda: release.is_released(load_model(models), to),
            lambda: release.export_release(models, to),
        )
    diffusers_version()
    if args.pipeline is None and upsampler_folder.is_upsampler_alone(models):
        return (
            lambda: upsampler_folder.is_exported(load_upsampler(models[0]), to),
            lambda: upsampler_folder.export_upsampler(models[0], to),
        )
    return (
        lambda: diffusers_folder.is_exported(exportable.load_exportable(models, pipeline), to, pipeline),
        lambda: diffusers_folder.export_diffusers(models, to, pipeline=pipeline),
    )


def _sample(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.workflow.progress import on_a_line
    from dalle2_train.workflow.steps import sample_grid

    if not args.to.lower().endswith(".png"):
        raise InputError(f"--to {args.to}: the picture is a PNG; give a name that ends in .png")
    settings = sections(args.set, generation={})["generation"]
    model, source = _open_to_draw(args, resolve_models(args.models, args.tracking), settings)
    storage.check_could_write(storage.parent(args.to))
    count = f"{len(args.prompt)} picture{'s' * (len(args.prompt) > 1)}"
    if args.dry_run:
        data = {"to": args.to, "prompts": args.prompt, **told(source, model.settings)}
        return would(data, f"sample {count} into {args.to}", in_words(model.settings))
    with on_a_line("sample") as line:
        sample_grid(model, args.prompt, args.to, seed=args.seed, progress=line.tell)
    done = {"to": args.to, "prompts": args.prompt, "seed": args.seed, **told(source, model.settings)}
    return Outcome(done, f"{args.to}: {count}")
