"""How good are pictures by the decoder's sampler and number of steps? KID and R@10 by the judge, for a released model.

Every sampler draws the same captions from the same image embeddings and the same first noise. A row is one sampler with
one number of steps and one seed; it is written as soon as it is there, and a second call goes on. Pictures are judged
as the decoder draws them, without an upsampler.

Legend: Q captions, E embedding, H W the decoder's picture size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import circumstances
from benchmarks.sampler_rows import SAMPLERS, Point, Rows, figure, summary, table
from dalle2_train import storage
from dalle2_train.config import override, to_dict
from dalle2_train.data.samples.collect import collect
from dalle2_train.errors import EXIT_CODES, INTERRUPTED, InputError, exit_code
from dalle2_train.evaluation import verified_digest
from dalle2_train.evaluation.gallery import Gallery, choose, fingerprint
from dalle2_train.evaluation.judge import Judge, load_judge
from dalle2_train.evaluation.kid import kid
from dalle2_train.evaluation.retrieval import recall_at, similarities
from dalle2_train.generation.config import GenerationConfig
from dalle2_train.generation.decoder import run_decoder
from dalle2_train.generation.load import load_unclip
from dalle2_train.generation.noise import Draws
from dalle2_train.generation.pixels import to_uint8
from dalle2_train.generation.presets import of_profile
from dalle2_train.generation.prior import run_prior
from dalle2_train.generation.settings import settled
from dalle2_train.generation.unclip import UPSAMPLERS, ArPriorPart, Unclip
from dalle2_train.generation.words import read_prompts
from dalle2_train.workflow.progress import on_a_line

Tick = Callable[[], None]

_VARIED = ("num_steps", *dict.fromkeys(key for change in SAMPLERS.values() for key in change))
"""Of the decoder's settings, those that differ from row to row."""
_IDLE = {
    **dict.fromkeys((f"decoder.{key}" for key in _VARIED), "every row has its own"),
    "decoder.image_embed": "the prior's embeddings are drawn from",
    **dict.fromkeys(UPSAMPLERS, "pictures are judged as the decoder draws them"),
}


class Bench(NamedTuple):
    """What stays the same from row to row."""

    unclip: Unclip
    config: GenerationConfig
    gallery: Gallery
    num_queries: int
    judge: Judge
    real: NDArray[np.float32]
    """The gallery's features."""


def main() -> int:
    """Prints a table, and writes the JSON and its figure; returns the exit code, as the command line's."""
    try:
        return run(_arguments())
    except tuple(EXIT_CODES) as error:
        print(str(error) or INTERRUPTED, file=sys.stderr)
        return exit_code(error)


def run(args: argparse.Namespace) -> int:
    """Measure what is asked for and not there yet."""
    bench = _open(args)
    points = [
        Point(n, s, seed) for seed in range(args.seeds) for s in sorted(args.steps) for n in args.samplers
    ]
    rows = Rows(args.to, _question(args, bench), circumstances("make bench-samplers RELEASE=… DATA=…"))
    asked = [point for point in points if point not in rows]
    with on_a_line("samplers") as line:
        done, total = 0, sum(point.num_steps for point in asked) * _num_batches(bench)

        def tick() -> None:
            nonlocal done
            done += 1
            line.tell(done, total)

        _measure(bench, rows, asked, tick)
    rows.conclude(summary(rows.found))
    storage.publish_bytes(args.figure, figure(rows.found))
    print(table(rows.found))
    return 0


def _measure(bench: Bench, rows: Rows, asked: Sequence[Point], tick: Tick) -> None:
    embeds: dict[int, Tensor] = {}
    for point in asked:
        if point.seed not in embeds:
            embeds[point.seed] = _image_embeds(bench, point.seed)
        images = _draw(bench, embeds[point.seed], point, tick)
        rows.add(point, _judge(bench, images))


@torch.inference_mode()
def _image_embeds(bench: Bench, seed: int) -> Tensor:
    """(Q, E), by the config's prior."""
    unclip = bench.unclip
    assert unclip.prior is not None and not isinstance(unclip.prior, ArPriorPart), "see _open"
    done = []
    for index, captions in _batches(bench):
        of_prior, _ = read_prompts(unclip, captions)
        done.append(run_prior(unclip.prior, *of_prior, Draws(seed, index), bench.config.prior, lambda: None))
    return torch.cat(done)


@torch.inference_mode()
def _draw(bench: Bench, image_embed: Tensor, point: Point, tick: Tick) -> Tensor:
    """(Q, 3, H, W) uint8."""
    unclip = bench.unclip
    config = replace(bench.config.decoder, num_steps=point.num_steps, **SAMPLERS[point.sampler])
    done = []
    for index, captions in _batches(bench):
        _, of_decoder = read_prompts(unclip, captions)
        draws = Draws(point.seed, index)
        small = run_decoder(unclip.decoder, image_embed[index], *of_decoder, draws, config, tick)
        done.append(to_uint8(small))
    return torch.cat(done)


def _judge(bench: Bench, images: Tensor) -> dict[str, float]:
    seen = _see(bench.judge, images)
    distance = kid(seen, bench.real)
    found = recall_at(similarities(seen, bench.real), np.arange(len(seen)), 10)
    return {"kid": distance.value, "kid_error": distance.error, "r10": found.value, "r10_error": found.error}


def _see(judge: Judge, images: Tensor) -> NDArray[np.float32]:
    return torch.cat([judge.encode_image(batch).float() for batch in images.split(32)]).numpy()


def _batches(bench: Bench) -> list[tuple[Tensor, list[str]]]:
    """(places in the list, captions) of every batch."""
    captions = list(bench.gallery.captions[: bench.num_queries])
    index = torch.arange(len(captions)).split(bench.config.batch_size)
    return [(part, [captions[i] for i in part.tolist()]) for part in index]


def _num_batches(bench: Bench) -> int:
    return len(_batches(bench))


def _open(args: argparse.Namespace) -> Bench:
    unclip = load_unclip([args.model])
    if isinstance(unclip.prior, ArPriorPart):
        raise InputError(
            f"{args.model} has an ar_prior, which no diffusion sampler draws; give a diffusion prior"
        )
    settings = override({"generation": {}}, args.set)["generation"]
    config = settled(unclip, settings, of_profile(unclip.decoder.manifest.profile), _IDLE)
    size = unclip.decoder.network.config.image_size
    gallery = choose(collect(args.data, args.split, size), args.gallery)
    judge = load_judge()
    return Bench(unclip, config, gallery, min(args.queries, len(gallery)), judge, _see(judge, gallery.images))


def _question(args: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """What rows must have in common to stand in one file."""
    decoder = {k: v for k, v in to_dict(bench.config.decoder).items() if k not in _VARIED}
    return {
        "model": verified_digest(args.model),
        "split": args.split,
        "num_queries": bench.num_queries,
        "gallery": fingerprint([bench.gallery], bench.num_queries),
        "prior": to_dict(bench.config.prior),
        "decoder": decoder,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a release folder")
    parser.add_argument("--data", required=True, help="the shards that it is judged by")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--queries", type=int, default=200, help="captions")
    parser.add_argument("--gallery", type=int, default=200, help="real pictures")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 50, 250])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--seeds", type=int, default=3, help="how often each row is drawn with other noise")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="generation.prior.num_steps=20 …"
    )
    parser.add_argument("--to", default="docs/results/sampler_steps.json")
    parser.add_argument("--figure", default=str(Path("docs", "images", "sampler_steps.png")))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
