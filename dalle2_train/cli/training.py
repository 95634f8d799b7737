"""`train` and `runs`: start or go on with a training, and see how far each one is."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from dalle2_train.cli.manners import (
    MODEL_HELP,
    Outcome,
    add_command,
    add_settings,
    number_from,
    resolve_model,
    would,
)
from dalle2_train.errors import InputError

if TYPE_CHECKING:
    from dalle2_train.checkpoints.runs import RunStatus

_SILENT_MINUTES = 5


def add_commands(commands: Any) -> None:
    """Adds `train` and `runs`."""
    train = add_command(
        commands, "train", _train, "train a model; run again with the same --name, it goes on"
    )
    train.add_argument(
        "recipe", metavar="FAMILY/NAME|FILE", help="a packaged recipe, or a YAML file of yours"
    )
    train.add_argument(
        "--data", required=True, metavar="URI", help="folder of shards, or a mixture's YAML file"
    )
    train.add_argument("--storage", required=True, metavar="URI", help="folder of all runs")
    train.add_argument("--name", required=True, help="this run's name under --storage")
    train.add_argument(
        "--workers",
        type=number_from(0, "workers"),
        default=0,
        metavar="N",
        help="Ray workers; 0: this process (default)",
    )
    train.add_argument("--clip", metavar="MODEL", help=f"the frozen CLIP: {MODEL_HELP}, or a hub name")
    train.add_argument("--embeddings", metavar="URI", help="folder of embedded shards (shards embed)")
    train.add_argument(
        "--init-from",
        metavar="MODEL",
        help=f"weights to begin with: {MODEL_HELP}, a diffusers "
        "unCLIP folder, or for a CLIP a Hugging Face folder",
    )
    train.add_argument(
        "--tracking", metavar="URI", help="MLflow: http(s)://HOST:PORT or sqlite:///FILE; without: none"
    )
    train.add_argument(
        "--experiment", default="dalle2-train", help="MLflow experiment (default: %(default)s)"
    )
    add_settings(train, "the recipe, for instance training.num_steps=100")

    runs = add_command(commands, "runs", _runs, "what runs, how far, how well")
    runs.add_argument("name", nargs="?", help="one run alone")
    runs.add_argument("--storage", required=True, metavar="URI", help="folder of all runs")
    runs.add_argument("--stop", action="store_true", help="ask NAME to save a checkpoint and stop")


def _train(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.launch import TrainJob, check, train
    from dalle2_train.recipe import load_recipe
    from dalle2_train.workflow.progress import on_a_line, watch_run

    recipe = load_recipe(args.recipe, args.set)
    clip, init_from = args.clip or recipe.clip, args.init_from
    job = TrainJob(
        recipe=recipe,
        data=args.data,
        storage=args.storage,
        name=args.name,
        clip=clip and resolve_model(clip, args.tracking),
        embeddings=args.embeddings or recipe.embeddings,
        tracking=args.tracking,
        experiment=args.experiment,
        init_from=init_from and resolve_model(init_from, args.tracking),
    )
    if args.dry_run:
        check(job, args.workers)
        steps = recipe.training.num_steps
        return would(
            {"run": job.run_uri, "steps": steps}, f"train {args.recipe} for {steps} steps as {job.run_uri}"
        )
    with on_a_line(args.name, watch_run(job.run_uri)):
        result = train(job, args.workers)
    loss = "" if result.loss is None else f", loss {result.loss:.4f}"
    return Outcome(
        to_dict(result), f"{result.run}: trained to step {result.step}{loss}; weights in {result.model}"
    )


def _runs(args: argparse.Namespace) -> Outcome:
    from dalle2_train.checkpoints.runs import list_runs, request_stop
    from dalle2_train.config import to_dict

    found = list_runs(args.storage, args.name)
    if args.stop and args.name is None:
        raise InputError("--stop needs the NAME of the run to stop")
    if args.stop and not args.dry_run:
        request_stop(args.storage, args.name)
    text = "\n".join(_line(run) for run in found) or f"no runs in {args.storage}"
    return Outcome(
        {"runs": [to_dict(run) for run in found], "stop_requested": args.stop and not args.dry_run}, text
    )


def _line(run: "RunStatus") -> str:
    loss = "" if run.loss is None else f"loss {run.loss:.4f}"
    left = ""
    if run.status == "running":
        minutes = (time.time() - run.updated) / 60
        # A killed run can no longer say so, and a long step looks the same: tell what is known.
        if minutes > _SILENT_MINUTES:
            left = f"silent for {minutes:.0f} min"
        elif run.seconds_left is not None:
            left = f"{run.seconds_left / 60:.0f} min left"
    return f"{run.name:<24} {run.status:<10} {run.step:>8} / {run.num_steps:<8} {loss}  {left}".rstrip()
