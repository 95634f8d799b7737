"""`train` and `runs`: start or go on with a training, and see how far each one is."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from dalle2_train.cli.manners import (
    MODEL_HELP,
    Outcome,
    add_command,
    add_settings,
    resolve_model,
    would,
)
from dalle2_train.errors import InputError

if TYPE_CHECKING:
    from dalle2_train.checkpoints.runs import RunStatus

_SILENT_MINUTES = 5
_SECONDS_BETWEEN_LOOKS = 2.0


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
        default="0",
        metavar="N|MIN:MAX",
        help="Ray workers, as many as there is room for between two numbers; 0: this process (default)",
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
    runs.add_argument(
        "--follow", action="store_true", help="stay until NAME runs no more, and show how far it is"
    )
    runs.add_argument("--stop", action="store_true", help="ask NAME to save a checkpoint and stop")


def _train(args: argparse.Namespace) -> Outcome:
    from dalle2_train.checkpoints.runs import list_runs
    from dalle2_train.config import to_dict
    from dalle2_train.launch import TrainJob, WorkerCount, check, train
    from dalle2_train.recipe import load_recipe
    from dalle2_train.workflow.progress import on_a_line, watch_run

    recipe = load_recipe(args.recipe, args.set)
    clip, init_from, workers = args.clip or recipe.clip, args.init_from, WorkerCount.of(args.workers)
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
        check(job, workers)
        steps = recipe.training.num_steps
        return would(
            {"run": job.run_uri, "steps": steps}, f"train {args.recipe} for {steps} steps as {job.run_uri}"
        )
    with on_a_line(args.name, watch_run(job.run_uri)):
        result = train(job, workers)
    loss = "" if result.loss is None else f", loss {result.loss:.4f}"
    text = f"{result.run}: trained to step {result.step}{loss}; weights in {result.model}"
    (run,) = list_runs(args.storage, args.name)
    return Outcome(to_dict(result), f"{text}\n{_table(run)}".rstrip())


def _runs(args: argparse.Namespace) -> Outcome:
    from dalle2_train.checkpoints.runs import list_runs, request_stop
    from dalle2_train.config import to_dict

    for option in ("stop", "follow"):
        if getattr(args, option) and args.name is None:
            raise InputError(f"--{option} needs the NAME of the run to {option}")
    if args.stop and not args.dry_run:
        request_stop(args.storage, args.name)
    if args.follow and not args.dry_run:
        _follow(args.storage, args.name)
    found = list_runs(args.storage, args.name)
    text = "\n".join(_line(run) for run in found) or f"no runs in {args.storage}"
    if args.stop and not args.dry_run and not args.follow:
        text += "\nasked to stop: it saves a checkpoint after its step, then ends"
    return Outcome(
        {"runs": [to_dict(run) for run in found], "stop_requested": args.stop and not args.dry_run},
        text if args.name is None else f"{text}\n{_table(found[0])}".rstrip(),
    )


def _follow(storage_uri: str, name: str) -> None:
    """Until the run runs no more, or is silent for long."""
    from dalle2_train import storage
    from dalle2_train.checkpoints.runs import list_runs
    from dalle2_train.workflow.progress import on_a_line, watch_run

    sign, heard = None, time.monotonic()
    watch = watch_run(storage.join(storage_uri, name), since=0.0)  # its last word, whenever that was
    told = {"done": "followed for", "stopped": "followed for"}  # the run itself may go on
    with on_a_line(name, watch, **told, first=watch()):
        while True:
            (run,) = list_runs(storage_uri, name)
            if (run.updated, run.beat) != sign:
                sign, heard = (run.updated, run.beat), time.monotonic()
            if not run.is_trained or time.monotonic() - heard > 60 * _SILENT_MINUTES:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _table(run: "RunStatus") -> str:
    """Where the wall time went, a line each."""
    if run.time is None or run.time["wall"] <= 0:
        return ""
    told = {"useful": "steps", "repeated": "steps done again", "data": "waiting for data",
            "checkpoint": "waiting for checkpoints", "pictures": "drawing pictures",
            "down": "starting, and between attempts"}  # fmt: skip
    wall = run.time["wall"]
    lines = [
        f"  {text:<32}{run.time[key]:>10.0f} s {run.time[key] / wall:>7.1%}" for key, text in told.items()
    ]
    attempts = int(run.time["attempts"])
    return "\n".join([f"wall time {wall:.0f} s over {attempts} attempt{'s' * (attempts > 1)}", *lines])


def _line(run: "RunStatus") -> str:
    loss = "" if run.loss is None else f"loss {run.loss:.4f}"
    left, status = "", str(run.status)
    if run.is_trained and status in ("failed", "preempted"):
        status = "restarting"  # the attempt did; who started it goes on
    if run.is_dead:
        left = "ended without a word; the same command goes on"
    elif run.status == "running":
        minutes = (time.time() - run.updated) / 60
        # A killed run can no longer say so, and a long step looks the same: tell what is known.
        if minutes > _SILENT_MINUTES:
            left = f"silent for {minutes:.0f} min"
        elif run.seconds_left is not None:
            left = f"{run.seconds_left / 60:.0f} min left"
    return f"{run.name:<24} {status:<10} {run.step:>8} / {run.num_steps:<8} {loss}  {left}".rstrip()
