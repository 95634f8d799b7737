"""`shards …`: pictures and captions into shards, their manifest, their faults, their statistics and scores."""

import argparse
from typing import Any

from dalle2_train.cli.embeddings import add_embed, index_embeddings
from dalle2_train.cli.manners import (
    LOOKUP_HELP,
    SHARDS_HELP,
    WORKERS_HELP,
    Outcome,
    add_command,
    add_settings,
    extent,
    number_from,
    would,
)
from dalle2_train.errors import InputError


def add_commands(commands: Any) -> None:
    """Adds `shards` with its steps."""
    shards = commands.add_parser("shards", help="make, index, check and embed image–text shards")
    steps = shards.add_subparsers(required=True, metavar="STEP")
    for add in (_add_ingest, _add_index, _add_check, _add_stats, _add_score, add_embed):
        add(steps)


def _add_ingest(steps: Any) -> None:
    ingest = add_command(steps, "ingest", _ingest, "pictures and captions → LAION shards")
    ingest.add_argument(
        "source",
        metavar="SOURCE",
        help="emoji | emoji:quick | emoji:outlined:PIXELS | folder:PATH | parquet:URI",
    )
    ingest.add_argument("--to", required=True, metavar="URI", help="folder for the shards")
    ingest.add_argument(
        "--image-size",
        type=number_from(1, "pixels"),
        metavar="PIXELS",
        help="parquet: reduce pictures to this shorter side (default: 256)",
    )


def _add_index(steps: Any) -> None:
    index = add_command(
        steps, "index", _index, "write the manifest: every shard's size, digest, samples and splits"
    )
    index.add_argument("uri", metavar="URI", help=f"{SHARDS_HELP}; embeddings with --clip")
    index.add_argument(
        "--to",
        metavar="FOLDER",
        help="where the manifest goes when not beside the shards; it then is the data",
    )
    index.add_argument(
        "--clip",
        metavar="MODEL",
        help="take up embeddings made with this CLIP: clip-retrieval's, or members of the tars",
    )
    index.add_argument("--tracking", metavar="URI", help=f"with --clip: {LOOKUP_HELP}")
    index.add_argument("--workers", type=number_from(0, "workers"), default=0, metavar="N", help=WORKERS_HELP)


def _add_check(steps: Any) -> None:
    check = add_command(
        steps, "check", _check, "find every fault by shard, key and kind (exit code 3 when there are some)"
    )
    check.add_argument("uri", metavar="URI", help=SHARDS_HELP)


def _add_stats(steps: Any) -> None:
    stats = add_command(
        steps, "stats", _stats, "how sizes, captions and scores are distributed, and what filters would drop"
    )
    stats.add_argument("uri", metavar="URI", help=SHARDS_HELP)
    stats.add_argument("--to", metavar="FOLDER", help="folder for stats.png and stats.json")
    add_settings(stats, "split and filters, for instance filters.min_width=256")


def _add_score(steps: Any) -> None:
    score = add_command(
        steps,
        "score",
        _score,
        "score every picture for pornography, for filters.max_nsfw_score (needs [nsfw])",
    )
    score.add_argument("uri", metavar="URI", help=SHARDS_HELP)


def _ingest(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.data.sources.ingest import check_ingest, ingest

    if args.dry_run:
        is_there = check_ingest(args.source, args.to, image_size=args.image_size)
        what = f"find all shards of {args.source} in" if is_there else f"make shards of {args.source} in"
        return would({"source": args.source, "to": args.to, "is_there": is_there}, f"{what} {args.to}")
    result = ingest(args.source, args.to, image_size=args.image_size)
    done = "were there already" if result.skipped else "written"
    text = f"{result.uri}: {result.num_samples} samples in {result.num_shards} shards {done}; {_splits(result.splits)}"
    lines = [f"{count:>12,}  {status}" for status, count in result.statuses.items()]
    return Outcome(to_dict(result), "\n".join([*lines, text]))


def _index(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.data.shards.index import index, plan
    from dalle2_train.launch.shard_map import shard_map

    if args.clip is not None:
        return index_embeddings(args)
    if args.tracking is not None:
        raise InputError(f"--tracking {args.tracking} is for --clip; leave it out")
    if args.dry_run:
        planned = plan(args.uri, args.to, storage.check_could_write)
        data = {"uri": args.uri, "to": planned.home, "num_shards": len(planned.tars)}
        return would(data, f"index {len(planned.tars)} shards in {args.uri} into {planned.home}")
    manifest = index(args.uri, args.to, map_shards=shard_map(args.workers) if args.workers else None)
    found = {
        "num_shards": len(manifest.shards),
        "num_samples": manifest.num_samples,
        "splits": manifest.count(),
    }
    text = f"{args.uri}: {found['num_samples']} samples in {found['num_shards']} shards; {_splits(manifest.count())}"
    return Outcome({"uri": args.uri, "digest": manifest.digest, **found}, text)


def _check(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.data.check.doctor import check, count_tars
    from dalle2_train.data.spread import in_processes

    if args.dry_run:
        shards = count_tars(args.uri)
        return would({"uri": args.uri, "num_shards": shards}, f"check {args.uri}, {shards} shards")
    report = check(args.uri, map_shards=map if args.uri.startswith("memory:") else in_processes)
    lines = [
        f"{fault.shard}  {fault.key or '-'}  {fault.kind}" + (f"  ({fault.reason})" if fault.reason else "")
        for fault in report.faults
    ]
    counts = report.count()
    of_kinds = ": " + ", ".join(f"{count} {kind}" for kind, count in counts.items()) if counts else ""
    whole = f"{report.num_samples} samples in {report.num_shards} shards, {len(lines)} faults{of_kinds}"
    text = "\n".join([*lines, f"{args.uri}: {whole}"])
    return Outcome({**to_dict(report), "kinds": counts}, text, 3 if report.faults else 0)


def _score(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.data.selection.score import load_model, score

    model = load_model()
    if args.dry_run:
        about, of_them = extent(args.uri)
        return would({"uri": args.uri, **about}, f"score {of_them} of {args.uri}")
    found = score(args.uri, model)
    text = f"{args.uri}: {found.num_scored} pictures have scores of {found.model}, {found.num_unscored} samples none"
    return Outcome(to_dict(found), text)


def _stats(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.config import build, override, to_dict
    from dalle2_train.data.stats.figure import figure
    from dalle2_train.data.stats.stats import StatsConfig, stats
    from dalle2_train.data.stats.table import table

    # As a recipe spells them, too.
    config = build(
        StatsConfig, override({}, [setting.removeprefix("data.") for setting in args.set]), "stats"
    )
    if args.to is not None:
        storage.check_could_write(args.to)
    if args.dry_run:
        about, of_them = extent(args.uri)
        return would({"uri": args.uri, "to": args.to, **about}, f"look at {of_them} of {args.uri}")
    found = stats(args.uri, config)
    text = table(found)
    if args.to is not None:
        picture, numbers = storage.join(args.to, "stats.png"), storage.join(args.to, "stats.json")
        storage.publish_bytes(picture, figure(found))
        storage.publish_json(numbers, {**to_dict(found), "filters": to_dict(config.filters)})
        text += f"\nhistograms in {picture} and {numbers}"
    return Outcome(to_dict(found), text)


def _splits(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())
