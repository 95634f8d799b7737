"""`recipes` and `doctor`: what can be trained, and whether this machine can."""

import argparse
import os
from typing import Any

from dalle2_train.cli.manners import Outcome, add_command, add_settings


def add_commands(commands: Any) -> None:
    """Adds `recipes` and `doctor`."""
    recipes = add_command(commands, "recipes", _recipes, "list the packaged recipes, or print one resolved")
    recipes.add_argument(
        "recipe", nargs="?", metavar="FAMILY/NAME", help="a packaged recipe, or a YAML file of yours"
    )
    add_settings(recipes, "the recipe")

    doctor = add_command(
        commands, "doctor", _doctor, "is this machine, or the Ray cluster at RAY_ADDRESS, fit to train?"
    )
    doctor.add_argument("--storage", metavar="URI", help="where runs will be stored: is it writable?")
    doctor.add_argument("--tracking", metavar="URI", help="the MLflow server or store: does it answer?")


def _recipes(args: argparse.Namespace) -> Outcome:
    if args.recipe is None:
        from dalle2_train.recipes import list_recipes

        names = list_recipes()
        return Outcome({"recipes": names}, "\n".join(names))
    import yaml

    from dalle2_train.config import to_dict
    from dalle2_train.recipe import load_recipe
    from dalle2_train.recipes import header

    recipe = load_recipe(args.recipe, args.set)
    resolved = to_dict(recipe)
    # The header speaks of the file as it is.
    told = "" if args.set else header(args.recipe)
    if "# Parameters: " not in told and not args.json:
        from dalle2_train.planning.parameters import count_parameters

        told += f"# Parameters: {count_parameters(recipe.model)}\n"
    return Outcome(resolved, told + yaml.safe_dump(resolved, sort_keys=False, width=120).rstrip())


def _doctor(args: argparse.Namespace) -> Outcome:
    from dalle2_train.config import to_dict
    from dalle2_train.doctor import DoctorReport, examine

    report = examine(args.storage, args.tracking)
    if "RAY_ADDRESS" in os.environ:
        # Ray takes seconds to import and is wanted where there is a cluster only.
        from dalle2_train.launch.cluster_doctor import examine_cluster

        report = DoctorReport((*report.checks, *examine_cluster(args.storage)))
    lines = [f"{'ok ' if check.ok else 'BAD'}  {check.name:<18} {check.detail}" for check in report.checks]
    return Outcome({"ok": report.ok, **to_dict(report)}, "\n".join(lines), 0 if report.ok else 3)
