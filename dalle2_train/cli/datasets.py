"""`shards …`: pictures and captions into shards, their manifest, their faults, their embeddings."""

import argparse
from typing import Any

from dalle2_train.cli.manners import MODEL_HELP, Outcome, add_command, add_settings, resolve_model, would

SHARDS_HELP = "shards: a folder, one .tar, or a pattern such as 's3://bucket/set/{00000..00099}.tar'"
_WORKERS_HELP = "Ray actors that take a shard each; 0 (the default): this machine alone, without Ray"


def add_commands(commands: Any) -> None:
    shards = commands.add_parser("shards", help="make, index, check and embed image–text shards")
    steps = shards.add_subparsers(required=True, metavar="STEP")

    ingest = add_command(steps, "ingest", _ingest, "pictures and captions → LAION shards")
    ingest.add_argument("source", metavar="SOURCE", help="emoji | emoji:quick | folder:PATH | parquet:URI")
    ingest.add_argument("--to", required=True, metavar="URI", help="folder for the shards")
    ingest.add_argument(
        "--image-size",
        type=_pixels,
        metavar="PIXELS",
        help="parquet: reduce pictures to this shorter side (default: 256)",
    )

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
    index.add_argument("--tracking", metavar="URI", help="where models:/NAME@ALIAS is looked up")
    index.add_argument("--workers", type=int, default=0, metavar="N", help=_WORKERS_HELP)

    check = add_command(
        steps, "check", _check, "find every fault by shard, key and kind (exit code 3 when there are some)"
    )
    check.add_argument("uri", metavar="URI", help=SHARDS_HELP)

    stats = add_command(
        steps, "stats", _stats, "how sizes, captions and scores are distributed, and what filters would drop"
    )
    stats.add_argument("uri", metavar="URI", help=SHARDS_HELP)
    stats.add_argument("--to", metavar="FOLDER", help="folder for stats.png and stats.json")
    add_settings(stats, "split and filters, for instance filters.min_width=256")

    score = add_command(
        steps,
        "score",
        _score,
        "score every picture for pornography, for filters.max_nsfw_score (needs [nsfw])",
    )
    score.add_argument("uri", metavar="URI", help=SHARDS_HELP)

    embed = add_command(steps, "embed", _embed, "CLIP embeddings of every sample, a file of rows a shard")
    embed.add_argument("uri", metavar="URI", help=SHARDS_HELP)
    embed.add_argument("--clip", required=True, metavar="MODEL", help=MODEL_HELP)
    embed.add_argument(
        "--to", required=True, metavar="URI", help="folder for the embeddings; may be the shards'"
    )
    embed.add_argument("--tracking", metavar="URI", help="where models:/NAME@ALIAS is looked up")
    embed.add_argument(
        "--dtype", default="fp16", choices=("fp16", "bf16", "fp32"), help="default: %(default)s"
    )
    embed.add_argument(
        "--text-encodings",
        action="store_true",
        help="keep the tokens' states too, which training else computes anew",
    )
    embed.add_argument("--batch-size", type=int, default=64, metavar="N", help="samples encoded at once")
    embed.add_argument(
        "--max-faulty",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of samples; more end it (default: %(default)s)",
    )
    embed.add_argument("--workers", type=int, default=0, metavar="N", help=_WORKERS_HELP)


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of pixels; give 64, 256, 1024, …")
    return int(text)


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
    from dalle2_train.data.shards.index import check_home, index
    from dalle2_train.data.shards.locate import home_of, shard_uris
    from dalle2_train.data.shards.manifest import shards_of
    from dalle2_train.launch.shard_map import shard_map

    if args.clip is not None:
        return _index_embeddings(args)
    if args.dry_run:
        shards, home = len(shard_uris(shards_of(args.uri))), home_of(args.to or args.uri)
        check_home(args.uri, home, storage.check_could_write)
        data = {"uri": args.uri, "to": home, "num_shards": shards}
        return would(data, f"index {shards} shards in {args.uri} into {home}")
    manifest = index(args.uri, args.to, map_shards=shard_map(args.workers) if args.workers else None)
    found = {
        "num_shards": len(manifest.shards),
        "num_samples": manifest.num_samples,
        "splits": manifest.count(),
    }
    text = f"{args.uri}: {found['num_samples']} samples in {found['num_shards']} shards; {_splits(manifest.count())}"
    return Outcome({"uri": args.uri, "digest": manifest.digest, **found}, text)


def _index_embeddings(args: argparse.Namespace) -> Outcome:
    from dalle2_train.errors import InputError
    from dalle2_train.launch.embed import index_foreign

    if args.workers or args.to:
        raise InputError("--workers and --to are for shards; leave them out with --clip")
    if args.dry_run:
        return would({"uri": args.uri, "clip": args.clip}, f"read the embeddings in {args.uri}")
    manifest = index_foreign(args.uri, resolve_model(args.clip, args.tracking))
    norm = manifest.info.norm
    data = {"uri": args.uri, "digest": manifest.digest, "num_samples": manifest.num_samples,
            "num_parts": len(manifest.parts), "splits": manifest.count(), "norm": norm}  # fmt: skip
    text = (
        f"{args.uri}: {manifest.num_samples} embeddings in {len(manifest.parts)} parts, of length {norm:.3g}"
    )
    return Outcome(data, text)


def _check(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.data.check.doctor import check
    from dalle2_train.data.spread import in_processes

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
    from dalle2_train.data.shards.index import load_or_index

    model = load_model()
    if args.dry_run:
        samples = load_or_index(args.uri).num_samples
        return would({"uri": args.uri, "num_samples": samples}, f"score {samples} samples of {args.uri}")
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
        return would({"uri": args.uri, "to": args.to}, f"read the index of {args.uri}")
    found = stats(args.uri, config)
    text = table(found)
    if args.to is not None:
        picture, numbers = storage.join(args.to, "stats.png"), storage.join(args.to, "stats.json")
        storage.publish_bytes(picture, figure(found))
        storage.publish_json(numbers, {**to_dict(found), "filters": to_dict(config.filters)})
        text += f"\nhistograms in {picture} and {numbers}"
    return Outcome(to_dict(found), text)


def _embed(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.data.shards.index import load_or_index
    from dalle2_train.encoders.loading import load_clip
    from dalle2_train.launch.embed import embed

    clip = resolve_model(args.clip, args.tracking)
    if args.dry_run:
        samples, fingerprint = load_or_index(args.uri).num_samples, load_clip(clip).fingerprint
        storage.check_writable(args.to)
        data = {"uri": args.uri, "to": args.to, "num_samples": samples, "clip_fingerprint": fingerprint}
        return would(data, f"embed {samples} samples of {args.uri} into {args.to}")
    manifest = embed(
        args.uri,
        args.to,
        clip,
        dtype=args.dtype,
        text_encodings=args.text_encodings,
        batch_size=args.batch_size,
        max_faulty=args.max_faulty,
        workers=args.workers,
    )
    faulty = sum(part.num_faulty for part in manifest.parts)
    data = {
        "to": args.to,
        "num_samples": manifest.num_samples,
        "num_faulty": faulty,
        "digest": manifest.digest,
    }
    left_out = f", {faulty} samples left out (see faults/ there)" if faulty else ""
    return Outcome(data, f"{args.to}: embeddings of {manifest.num_samples} samples{left_out}")


def _splits(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {split}" for split, count in counts.items())
