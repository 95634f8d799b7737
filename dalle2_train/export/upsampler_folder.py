"""An upsampler alone, as diffusers holds it: what the second one becomes, for UnCLIPPipeline's folder has room for one.

super_res_first/, super_res_last/ and super_res_scheduler/ lie in the folder as they do in UnCLIPPipeline's.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from dalle2_train import storage
from dalle2_train.checkpoints import model_digest
from dalle2_train.checkpoints.manifest import has_manifest, read_manifest
from dalle2_train.checkpoints.model import resolve_model
from dalle2_train.errors import InputError, RefusedError
from dalle2_train.export.diffusers_folder import schedule_faults
from dalle2_train.export.staging import check_free, file_names, refuse_damage, staged
from dalle2_train.generation.config import IMAGE_CLIP_RANGE
from dalle2_train.generation.folders import is_release
from dalle2_train.generation.part import load_upsampler
from dalle2_train.generation.unclip import Part
from dalle2_train.networks.upsampler import Upsampler, diffusers_config, enlarge

REPORT = "export.json"
TOLERANCE = 1e-9
"""Largest difference of an output, both computed in float64."""
NETWORKS = ("super_res_first", "super_res_last")
SCHEDULER = "super_res_scheduler"

_SCRIPT = Path(__file__).with_name("run_upsampler_with_diffusers.py")
_MINUTES = 30


@dataclass(frozen=True)
class UpsamplerExport:
    """An exported folder and why it can be trusted."""

    path: str
    models: Mapping[str, str]
    """Stage → digest of the model that was exported."""
    proof: Mapping[str, Any]
    """How far the outputs of a process that knows only the folder are from ours, and what is allowed."""


def export_upsampler(model: str, to: str) -> UpsamplerExport:
    """Writes the folder or URI `to`, after a fresh process has computed our outputs and schedule with it.

    A `to` that holds the export of this very model is left as it is. Errors: InputError for another kind of model,
    without diffusers, or when something else is at `to`; RefusedError for what diffusers cannot hold, and when the
    proof fails.
    """
    part = load_upsampler(model)
    digests = {"upsampler": model_digest(part.manifest)}
    uri = storage.join(to, REPORT)
    report = storage.read_json(uri) if storage.exists(uri) else {}
    if report.get("models") == digests:
        refuse_damage(to, report["files"])
    else:
        check_free(to)
        check_upsampler(part)
        with staged(to, last=REPORT) as folder:
            _write(part, folder)
            files = {name: storage.sha256_file(folder / name) for name in file_names(folder)}
            report = {"models": digests, "proof": _prove(part, folder), "files": files}
            storage.publish_json(str(folder / REPORT), report)
    return UpsamplerExport(storage.absolute(to), digests, report["proof"])


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
    assert part.objective.prediction_type != "v_prediction", "see check_upsampler"
    try:
        # Optional, and slow to import.
        from diffusers import UnCLIPScheduler, UNet2DModel
    except ImportError:
        raise InputError(
            "diffusers is not installed; install it with: pip install 'dalle2-train[export]'"
        ) from None
    for name, ours in _networks(part).items():
        network = UNet2DModel(**diffusers_config(ours.config))
        network.load_state_dict(ours.state_dict())
        network.save_pretrained(folder / name)
    UnCLIPScheduler(
        num_train_timesteps=part.schedule_config.num_steps,
        variance_type="fixed_small_log",
        clip_sample_range=IMAGE_CLIP_RANGE,
        prediction_type=part.objective.prediction_type,
    ).save_pretrained(folder / SCHEDULER)


def _networks(part: Part[Upsampler]) -> dict[str, Upsampler]:
    return dict(zip(NETWORKS, (part.network, part.last or part.network), strict=True))


def _prove(part: Part[Upsampler], folder: Path) -> dict[str, float]:
    """Largest differences of the network's outputs, at the ends and in the middle of the schedule, and of ᾱ."""
    size, generator = part.network.config.high_size, torch.Generator().manual_seed(0)
    num_steps = part.schedule.num_steps
    x_t = torch.randn(3, 3, size, size, dtype=torch.float64, generator=generator)
    small = torch.rand(3, 3, *[part.network.config.low_size] * 2, dtype=torch.float64, generator=generator)
    given = {
        "t": torch.tensor([0, num_steps // 2, num_steps - 1]),
        "x": torch.cat([x_t, enlarge(small * 2 - 1, size)], dim=1),
    }
    theirs = _run_afresh(folder, given)
    found = {}
    for name, network in _networks(part).items():
        widened = Upsampler(network.config).double().eval()
        widened.load_state_dict(network.state_dict())
        with torch.inference_mode():
            ours = widened(x_t, given["t"], given["x"][:, 3:])
        found[name] = float((theirs[name] - ours).abs().nan_to_num(nan=1.0).max())
    found["alphas_cumprod"] = float((theirs["alphas_cumprod"] - part.schedule.alphas_cumprod).abs().max())
    allowed = {name: TOLERANCE for name in NETWORKS} | {"alphas_cumprod": 1e-6}  # theirs are float32
    if wrong := [f"{name} differs by {found[name]:.2g}" for name in found if found[name] > allowed[name]]:
        raise RefusedError(
            f"the exported upsampler computes something else: {', '.join(wrong)}; nothing was written"
        )
    return found


def _run_afresh(folder: Path, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a process computes that knows only the folder."""
    with storage.local_staging() as scratch:
        asked, answered = scratch / "given.safetensors", scratch / "found.safetensors"
        save_file({name: value.contiguous() for name, value in given.items()}, asked)
        # -P keeps this package's folder off the script's path.
        command = [sys.executable, "-P", str(_SCRIPT), str(folder), str(asked), str(answered)]
        settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(torch.get_num_threads())}
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * _MINUTES, env=os.environ | settings
        )
        if result.returncode:
            lines = result.stderr.strip().splitlines() or ["no message"]
            raise RefusedError(f"diffusers cannot load or run the exported folder: {lines[-1]}")
        return load_file(answered)
