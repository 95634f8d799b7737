"""An upsampler alone, as diffusers holds it: what the second one becomes, for UnCLIPPipeline's folder has room for one.

super_res_first/, super_res_last/ and super_res_scheduler/ lie in the folder as they do in UnCLIPPipeline's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dalle2_train import storage
from dalle2_train.checkpoints import model_digest
from dalle2_train.checkpoints.manifest import has_manifest, read_manifest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.errors import RefusedError
from dalle2_train.export import report
from dalle2_train.export.diffusers_names import diffusers_version
from dalle2_train.export.exportable import schedule_faults
from dalle2_train.export.report import REPORT, DiffusersExport, proved_export
from dalle2_train.export.scheduler import scheduler_config
from dalle2_train.export.upsampler_proof import networks_of, prove_upsampler
from dalle2_train.generation.folders import is_release
from dalle2_train.generation.part import load_upsampler
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.upsampler import Upsampler, diffusers_config

SCHEDULER = "super_res_scheduler"


def export_upsampler(model: str, to: str) -> DiffusersExport:
    """Writes the folder or URI `to`, after a fresh process has computed our outputs and schedule with it.

    A `to` that holds the export of this very model is left as it is. Errors: InputError for another kind of model,
    without diffusers, or when something else is at `to`; RefusedError for what diffusers cannot hold, and when the
    proof fails.
    """
    diffusers_version()
    part = load_upsampler(model)
    check_upsampler(part)

    def make(folder: Path) -> dict[str, Any]:
        _write(part, folder)
        return prove_upsampler(part, folder)

    return proved_export(to, _about(part), REPORT, make)


def is_exported(part: Part[Upsampler], to: str) -> bool:
    """Is the export of this very model at `to`? Where not, there is room for it, and diffusers can hold it: errors as
    `export_upsampler`, but for the proof."""
    check_upsampler(part)
    return report.is_exported(to, _about(part), REPORT)


def _about(part: Part[Upsampler]) -> dict[str, Any]:
    return {"models": {"upsampler": model_digest(part.manifest)}}


def is_upsampler_alone(models: Sequence[str]) -> bool:
    """Is there one model, and is it an upsampler?"""
    if len(models) != 1 or not storage.exists(models[0]) or is_release(models[0]):
        return False
    uri = resolve_model(models[0])
    return has_manifest(uri) and read_manifest(uri).kind == "upsampler"


def check_upsampler(part: Part[Upsampler]) -> None:
    """RefusedError that names everything diffusers cannot hold."""
    if faults := schedule_faults("upsampler", part):
        raise RefusedError("diffusers cannot hold this upsampler: " + "; ".join(faults))


def _write(part: Part[Upsampler], folder: Path) -> None:
    # Optional, and slow to import.
    from diffusers import UnCLIPScheduler, UNet2DModel

    for name, ours in networks_of(part).items():
        network = UNet2DModel(**diffusers_config(ours.config))
        network.load_state_dict(ours.state_dict())
        network.save_pretrained(folder / name)
    settings = scheduler_config(SCHEDULER, part.schedule_config, part.objective)
    UnCLIPScheduler(**settings).save_pretrained(folder / SCHEDULER)
