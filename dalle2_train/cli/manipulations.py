"""`vary`, `interpolate`, `textdiff`, `inpaint` and `probe`: manipulations of a picture, each a labelled grid."""

import argparse
from collections.abc import Callable
from typing import Any

from dalle2_train.cli import manipulation_runs
from dalle2_train.cli.manners import (
    SHARDS_HELP,
    Outcome,
    add_command,
    add_models,
    number_from,
    several,
    share,
)
from dalle2_train.cli.sampler import add_sampler

_FILE_HELP = "a picture of any size; its middle square is used"


def add_commands(commands: Any) -> None:
    """Adds the five."""
    for add in (_add_vary, _add_interpolate, _add_textdiff, _add_inpaint, _add_probe):
        add(commands)


def _add_vary(commands: Any) -> None:
    summary = "a picture's variations: noise around what it is drawn from"
    vary = _add(commands, "vary", manipulation_runs.vary, summary, "picture")
    vary.add_argument("--eta", type=several(share), default=[0.25, 0.5, 0.75, 1.0], metavar="N,N,…",
                      help="how much noise, a column each (default: 0.25,0.5,0.75,1)")  # fmt: skip
    _add_samples(vary, 3)
    _add_refinements(vary)


def _add_interpolate(commands: Any) -> None:
    summary = "the pictures between two"
    interpolate = _add(commands, "interpolate", manipulation_runs.interpolate, summary, "first", "last")
    interpolate.add_argument("--steps", type=number_from(2, "pictures"), default=7, metavar="N",
                             help="pictures, both ends among them (default: %(default)s)")  # fmt: skip
    interpolate.add_argument("--fixed-noise", action="store_true",
                             help="one x_T, that --seed names, not the arc between the pictures' own")  # fmt: skip
    _add_refinements(interpolate)


def _add_textdiff(commands: Any) -> None:
    summary = "a picture turned by the difference of two texts"
    textdiff = _add(commands, "textdiff", manipulation_runs.textdiff, summary, "picture")
    textdiff.add_argument("--from", dest="before", required=True, metavar="TEXT", help="what the picture is")
    textdiff.add_argument("--into", dest="after", required=True, metavar="TEXT", help="what it shall be")
    textdiff.add_argument("--theta", type=several(share), default=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5], metavar="N,N,…",
                          help="how far, 0 to 1, a column each (default: 0,0.1 … 0.5)")  # fmt: skip
    _add_refinements(textdiff)


def _add_inpaint(commands: Any) -> None:
    summary = "a part of a picture drawn anew for a caption"
    inpaint = _add(commands, "inpaint", manipulation_runs.inpaint, summary, "picture")
    inpaint.add_argument(
        "--mask", required=True, metavar="PNG", help="as large as the picture; white: drawn anew"
    )
    inpaint.add_argument("--prompt", required=True, metavar="TEXT", help="a caption of the whole")
    inpaint.add_argument("--resample", type=number_from(1, "times"), default=1, metavar="N",
                         help="draw every stretch of steps N times, for old and new to agree (default: 1)")  # fmt: skip
    _add_samples(inpaint, 4)


def _add_probe(commands: Any) -> None:
    summary = "a picture from the first components of its embedding"
    probe = _add(commands, "probe", manipulation_runs.probe, summary, "picture")
    source = probe.add_mutually_exclusive_group(required=True)
    source.add_argument("--embeddings", metavar="URI", help="an embedded set whose components are taken")
    source.add_argument("--data", metavar="URI", help=f"in place of it, embedded now: {SHARDS_HELP}")
    probe.add_argument("--components", type=several(number_from(1, "components")), metavar="N,N,…",
                       help="how many to keep, a column each (default: all, a half, a quarter …)")  # fmt: skip
    _add_samples(probe, 2)


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Outcome], summary: str, *pictures: str
) -> argparse.ArgumentParser:
    parser = add_command(commands, name, run, summary)
    for picture in pictures:
        parser.add_argument(picture, metavar=picture.upper(), help=_FILE_HELP)
    add_models(parser)
    parser.add_argument("--to", required=True, metavar="PNG", help="the labelled grid")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (default: %(default)s)")
    add_sampler(parser, "the generation, for instance generation.decoder.guidance_scale=2")
    return parser


def _add_samples(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument("--samples", type=number_from(1, "samples"), default=default, metavar="N",
                        help="how many noises (default: %(default)s)")  # fmt: skip


def _add_refinements(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--refinements", type=number_from(0, "refinements"), metavar="N",
                        help="correct every step of the inversion N times (default: 1)")  # fmt: skip
