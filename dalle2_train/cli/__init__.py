"""The command line: parse, call one library function, print its result.

Nothing heavy is imported to parse, so `--help` answers at once; a command's function imports what it needs.
"""

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from dalle2_train.cli import calibration, datasets, manipulations, models, setup, training
from dalle2_train.cli.manners import Outcome
from dalle2_train.errors import EXIT_CODES, INTERRUPTED, exit_code
from dalle2_train.redaction import redact


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit code: 0 done, 1 our fault, 2 wrong input, 3 refused, 75 or 130 run it again."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    for chatty in ("aiobotocore", "botocore"):  # they tell at every start where credentials were found
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        outcome: Outcome = args.run(args)
    except tuple(EXIT_CODES) as error:
        print(f"dalle2-train: {redact(str(error)) or INTERRUPTED}", file=sys.stderr)
        return exit_code(error)
    except Exception:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)  # to be pasted where all can read it
        print("dalle2-train: this is a fault of ours; please report it with the lines above", file=sys.stderr)
        return 1
    try:
        print(json.dumps(outcome.data) if args.json else outcome.text, flush=True)
    except BrokenPipeError:  # `| head`: whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.exit_code


def build_parser() -> argparse.ArgumentParser:
    """Every command; each puts its function into `run`."""
    parser = argparse.ArgumentParser(
        prog="dalle2-train",
        description="Train DALL·E 2 (unCLIP) from image–text shards to a released model.",
        epilog="Exit codes: 0 done; 1 our fault; 2 wrong input; 3 refused on evidence; "
        "75 stopped with a checkpoint, 130 interrupted: run it again.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (setup, datasets, training, calibration, models, manipulations):
        group.add_commands(commands)
    return parser
