"""`shards embed` and `shards index --clip`: embeddings of shards, made here or by others."""

import argparse
from typing import Any

from dalle2_train.cli.manners import (
    LOOKUP_HELP,
    MODEL_HELP,
    SHARDS_HELP,
    WORKERS_HELP,
    Outcome,
    add_command,
    extent,
    number_from,
    resolve_model,
    share,
    would,
)
from dalle2_train.errors import InputError


def add_embed(steps: Any) -> None:
    """Adds `embed`."""
    embed = add_command(steps, "embed", _embed, "CLIP embeddings of every sample, a file of rows a shard")
    embed.add_argument("uri", metavar="URI", help=SHARDS_HELP)
    embed.add_argument("--clip", required=True, metavar="MODEL", help=MODEL_HELP)
    embed.add_argument(
        "--to", required=True, metavar="URI", help="folder for the embeddings; may be the shards'"
    )
    embed.add_argument("--tracking", metavar="URI", help=LOOKUP_HELP)
    embed.add_argument(
        "--dtype", default="fp16", choices=("fp16", "bf16", "fp32"), help="default: %(default)s"
    )
    embed.add_argument(
        "--text-encodings",
        action="store_true",
        help="keep the tokens' states too, which training else computes anew",
    )
    embed.add_argument(
        "--batch-size",
        type=number_from(1, "samples"),
        default=64,
        metavar="N",
        help="samples encoded at once (default: %(default)s)",
    )
    embed.add_argument(
        "--max-faulty",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="of samples; more end it (default: %(default)s)",
    )
    embed.add_argument("--workers", type=number_from(0, "workers"), default=0, metavar="N", help=WORKERS_HELP)


def _embed(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.encoders.loading import load_clip
    from dalle2_train.launch.embed import embed

    clip = resolve_model(args.clip, args.tracking)
    if args.dry_run:
        found, of_them = extent(args.uri)
        storage.check_could_write(args.to)
        encoder = load_clip(clip)
        sees = {"clip_fingerprint": encoder.fingerprint, "image_size": encoder.image_size}
        data = {"uri": args.uri, "to": args.to, **found, **sees}
        return would(data, f"embed {of_them} of {args.uri} into {args.to}")
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


def index_embeddings(args: argparse.Namespace) -> Outcome:
    """`index` where --clip is given."""
    from dalle2_train.launch.embed import index_foreign

    if args.workers or args.to:
        raise InputError("--workers and --to are for shards; leave them out with --clip")
    clip = resolve_model(args.clip, args.tracking)
    if args.dry_run:
        return would({"uri": args.uri, "clip": clip}, f"read the embeddings in {args.uri}")
    manifest = index_foreign(args.uri, clip)
    norm = manifest.info.norm
    data = {"uri": args.uri, "digest": manifest.digest, "num_samples": manifest.num_samples,
            "num_parts": len(manifest.parts), "splits": manifest.count(), "norm": norm}  # fmt: skip
    text = (
        f"{args.uri}: {manifest.num_samples} embeddings in {len(manifest.parts)} parts, of length {norm:.3g}"
    )
    return Outcome(data, text)
