"""`calibrate`: what a trained prior needs before Analytic-DPM samples from it."""

import argparse
from typing import Any

from dalle2_train.cli.manners import (
    LOOKUP_HELP,
    Outcome,
    add_command,
    add_settings,
    extent,
    resolve_model,
    would,
)
from dalle2_train.errors import InputError


def add_commands(commands: Any) -> None:
    """Adds `calibrate`."""
    calibrate = add_command(
        commands,
        "calibrate",
        _calibrate,
        "let sampler analytic_dpm sample from a prior: estimate its variances",
    )
    calibrate.add_argument("model", metavar="PRIOR", help="a run, a checkpoint or a model folder")
    calibrate.add_argument("--data", required=True, metavar="URI", help="shards with pictures and captions")
    calibrate.add_argument(
        "--clip", metavar="MODEL", help="default: the CLIP that the prior was trained with"
    )
    calibrate.add_argument("--tracking", metavar="URI", help=LOOKUP_HELP)
    add_settings(calibrate, "the calibration, for instance num_samples=2000")


def _calibrate(args: argparse.Namespace) -> Outcome:
    from dalle2_train import storage
    from dalle2_train.config import build, override, to_dict
    from dalle2_train.generation.calibrate import CalibrationConfig
    from dalle2_train.workflow.calibration import calibrate_prior, check_split, open_for_calibration
    from dalle2_train.workflow.progress import on_a_line

    config = build(CalibrationConfig, override({}, args.set), "calibration")
    model, clip = args.model, args.clip and resolve_model(args.clip, args.tracking)
    if model.startswith("models:/"):
        raise InputError(
            f"{model}: a registered model is what was judged, and calibrating changes it; calibrate the run, evaluate "
            "and promote it again"
        )
    if args.dry_run:
        open_for_calibration(model, config, clip=clip)
        found, _ = extent(args.data)
        if (splits := found.get("splits")) is not None:
            check_split(args.data, config.split, splits.get(config.split, 0))
        storage.check_could_write(model)
        return would({"model": model, **to_dict(config)}, f"calibrate {model} on {args.data}")
    with on_a_line("calibrate") as line:
        found = calibrate_prior(model, args.data, config, clip=clip, progress=line.tell)
    text = f"{model}: calibrated on {found.num_samples} samples at {len(found.timesteps)} timesteps"
    return Outcome({"model": model, **to_dict(found)}, text)
