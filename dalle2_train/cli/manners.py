"""What all commands share: --json, --dry-run, results, and the words of their arguments."""

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dalle2_train.errors import InputError, RefusedError

MODEL_HELP = "a run, a checkpoint, a folder exported as safetensors (path or URI), or models:/NAME@ALIAS"
SHARDS_HELP = "shards: a folder, one .tar, or a pattern such as 's3://bucket/set/{00000..00099}.tar'"
LOOKUP_HELP = "where models:/NAME@ALIAS is looked up"
WORKERS_HELP = "Ray actors that take a shard each; 0 (the default): this machine alone, without Ray"


@dataclass(frozen=True)
class Outcome:
    """A command's result: `data` for --json, `text` for people."""

    data: dict[str, Any]
    text: str
    exit_code: int = 0


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Outcome], summary: str
) -> argparse.ArgumentParser:
    """A command that answers to --json and --dry-run."""
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.add_argument(
        "--json", action="store_true", help="print the result as one JSON object on the last line"
    )
    parser.add_argument("--dry-run", action="store_true", help="resolve and check everything, do nothing")
    parser.set_defaults(run=run)
    return parser


def add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    """--set KEY=VALUE, any number of times."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help=f"change one value of {what}"
    )


def add_models(parser: argparse.ArgumentParser) -> None:
    """MODEL …, the parts of one unCLIP, and where aliases among them are looked up."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help=f"{MODEL_HELP}; several parts make one unCLIP"
    )
    parser.add_argument("--tracking", metavar="URI", help=LOOKUP_HELP)


def sections(settings: Sequence[str], **defaults: Mapping[str, Any]) -> dict[str, Any]:
    """--set SECTION.KEY=VALUE … on the defaults of each section. InputError for another section."""
    from dalle2_train.config import override

    found = override(defaults, settings)
    if others := set(found) - set(defaults):
        known = " or ".join(f"{name}.KEY=VALUE" for name in defaults)
        raise InputError(f"--set {min(others)}…: give {known}")
    return found


def number_from(least: int, what: str) -> Callable[[str], int]:
    """The type of an argument that counts `what`, of which there are `least` or more."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}; give {least} or more")
        return int(text)

    return parse


def share(text: str) -> float:
    """The type of an argument from 0 to 1."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a share; give a number from 0 to 1")


def several(of_one: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """The type of an argument that is one or more, with commas between."""
    return lambda text: [of_one(part) for part in text.split(",")]


def would(data: dict[str, Any], text: str, resolved: str = "") -> Outcome:
    """The result of a dry run; `resolved`: further lines, of what it would be done with."""
    lines = [f"would {text} (dry run: nothing was done)", resolved]
    return Outcome({"dry_run": True, **data}, "\n".join(line for line in lines if line))


def extent(uri: str) -> tuple[dict[str, Any], str]:
    """(what is known of the set at `uri`, the same in words), for a dry run, which does not index it.

    No set there, or no place for the manifest that it lacks: InputError.
    """
    from dalle2_train import storage
    from dalle2_train.data.shards.index import plan
    from dalle2_train.data.shards.locate import home_of
    from dalle2_train.data.shards.manifest import has_manifest, load

    home = home_of(uri)
    if has_manifest(home):
        manifest = load(home)
        found = {"num_samples": manifest.num_samples, "splits": manifest.count()}
        return found, f"{manifest.num_samples} samples"
    shards = len(plan(uri, check=storage.check_could_write).tars)
    return {"num_shards": shards}, f"the samples, not yet counted, in {shards} shards"


def resolve_models(models: Sequence[str], tracking_uri: str | None) -> list[str]:
    """`models` with every models:/NAME@ALIAS replaced by the URI that the registry has for it."""
    return [resolve_model(model, tracking_uri) for model in models]


def resolve_model(model: str, tracking_uri: str | None) -> str:
    """A model's URI. Raises InputError for an alias without a registry to look it up in."""
    if not model.startswith("models:/"):
        return model
    if tracking_uri is None:
        raise InputError(f"{model} is looked up in a registry; say which with --tracking URI")
    from dalle2_train.evaluation import verified_digest
    from dalle2_train.tracking.registry import lookup

    version = lookup(model, tracking_uri=tracking_uri)
    if verified_digest(version.uri) != version.digest:
        raise RefusedError(f"{model}: what lies at {version.uri} is not what was registered; restore it")
    return version.uri
